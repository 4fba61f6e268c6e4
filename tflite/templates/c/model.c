/* The layers in the order in which they run. A comment names the operators of the .tflite file. */
#include "model.h"

#include <string.h>

#include "weights.h"
${definition_of_names}
int tfsparse_run_in(void *buffer, size_t bytes, const int8_t *image, int8_t *logits) {
  int8_t *const memory = buffer;
  if (bytes < TFSPARSE_BUFFER_BYTES || ((uintptr_t)buffer & 3) != 0) return -1;
${calls}
  return 0;
}

int tfsparse_run(const int8_t *image, int8_t *logits) {
  static int32_t buffer[(TFSPARSE_BUFFER_BYTES + 3) / 4];
  return tfsparse_run_in(buffer, sizeof buffer, image, logits);
}
