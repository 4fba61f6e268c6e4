/* The layers in the order in which they run. A comment names the operators of the .tflite file. */
#include "model.h"

#include <string.h>

#include "weights.h"
${definition_of_names}
int tfsparse_run_in(void *buffer, size_t bytes, const int8_t *image, int8_t *logits) {
  int8_t *const memory = buffer;
  if (!memory || bytes < TFSPARSE_BUFFER_BYTES || ((uintptr_t)buffer & 3) != 0) return -1;
${calls}
  return 0;
}
