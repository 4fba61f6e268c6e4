/* In a file of its own, so that a program that calls tfsparse_run_in alone has no static buffer. */
#include "model.h"

int tfsparse_run(const int8_t *image, int8_t *logits) {
  static int32_t buffer[(TFSPARSE_BUFFER_BYTES + 3) / 4];
  return tfsparse_run_in(buffer, sizeof buffer, image, logits);
}
