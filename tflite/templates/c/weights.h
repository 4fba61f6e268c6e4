/* The constants of the layers. */
#ifndef TFSPARSE_WEIGHTS_H
#define TFSPARSE_WEIGHTS_H

#include "tfsparse_kernels.h"

${declarations}

#endif
