#include "weights.h"

/* Kernels read several numbers at once. */
#if defined(__GNUC__)
#define TFSPARSE_ALIGNED __attribute__((aligned(4)))
#else
#define TFSPARSE_ALIGNED
#endif

${definitions}
