/* Runs the model on images whose logits are known from LiteRT's reference kernels. main returns the
 * number of images whose logits differ in any bit: 0. */
#include "model.h"

enum { IMAGES = ${count} };

static const int8_t images[IMAGES][TFSPARSE_IMAGE_BYTES] = {
${inputs}};

static const int8_t expected[IMAGES][TFSPARSE_CLASSES] = {
${outputs}};

int main(void) {
  int different = 0;
  for (int i = 0; i < IMAGES; i++) {
    int8_t logits[TFSPARSE_CLASSES];
    int same = tfsparse_run(images[i], logits) == 0;
    for (int k = 0; k < TFSPARSE_CLASSES; k++) same &= logits[k] == expected[i][k];
    different += !same;
  }
  return different;
}
