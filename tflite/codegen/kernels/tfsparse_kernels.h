/* Kernels of int8 networks, in C99. Every output equals LiteRT's reference kernels to the bit.
 *
 * Tensors are NHWC with one image: [height][width][channels]. Nothing is allocated and nothing is
 * kept between calls: a kernel gets a scratch buffer, aligned to 4 bytes, from its caller. On Arm
 * cores with the DSP extension, kernels use its instructions; elsewhere, plain C; to the same bits.
 * There they load words from any address, which these cores allow unless told to trap: then compile
 * with -mno-unaligned-access or -DTFSPARSE_DSP=0. Some versions of clang do not make such loads by
 * default: -munaligned-access has them use the instructions.
 */
#ifndef TFSPARSE_KERNELS_H
#define TFSPARSE_KERNELS_H

#include <stdint.h>

/* A convolution, or a fully connected layer as one of an image of one pixel. The layout of weights
 * and table depends on the kernel. */
typedef struct {
  uint16_t input_height, input_width, input_channels;
  uint16_t output_height, output_width, output_channels;
  uint8_t kernel_height, kernel_width, stride_height, stride_width, pad_top, pad_left;
  int8_t input_zero_point, output_zero_point, activation_min, activation_max;
  const int32_t *filters; /* for each: bias, with the input's zero point folded in; multiplier, Q31 */
  const int8_t *shift;    /* for each, to the right */
  const int8_t *weights;
  const uint16_t *table;
} tfsparse_convolution;

typedef void tfsparse_convolution_kernel(const int8_t *input, const tfsparse_convolution *layer,
                                         int8_t *output, void *scratch);

tfsparse_convolution_kernel tfsparse_convolve_gathered; /* dense, periodic, fully connected */
tfsparse_convolution_kernel tfsparse_convolve_pairs;    /* neighboring filters keep the same */
tfsparse_convolution_kernel tfsparse_convolve_sparse;   /* single weights pruned; depthwise */
tfsparse_convolution_kernel tfsparse_convolve_plain;    /* any, slowly */

/* A fully connected layer of LiteRT's operator FULLY_CONNECTED, which rounds once: an output is the
 * sum of bias and products times multiplier / 2^shift. */
typedef struct {
  int32_t inputs, outputs;
  const int8_t *weights;
  const int32_t *bias, *multiplier; /* the input's zero point is folded in */
  const int8_t *shift;              /* 1 to 62 */
  int8_t output_zero_point, activation_min, activation_max;
} tfsparse_connection;

void tfsparse_fully_connected(const int8_t *input, const tfsparse_connection *layer,
                              int8_t *output);

/* The softmax of up to 511 numbers: exponentials[255 - d] is that of d steps below the largest one,
 * with 31 bits after the point. output may be the input. */
void tfsparse_softmax(const int8_t *input, const int32_t *exponentials, int32_t count,
                      int8_t *output);

/* The sum of two tensors. LiteRT's own parameters; shifts are to the right, shift_output by 1
 * to 22. */
typedef struct {
  int32_t multiplier_1, multiplier_2, multiplier_output;
  int8_t shift_1, shift_2, shift_output;
  int8_t zero_point_1, zero_point_2, zero_point_output, activation_min, activation_max;
} tfsparse_addition;

/* scratch: 2,048 bytes. output may be either input. */
void tfsparse_add(const int8_t *input_1, const int8_t *input_2, const tfsparse_addition *layer,
                  int32_t count, int8_t *output, void *scratch);

/* Pooling; windows are clipped to the image. In place where the stride is that of the window. */
typedef struct {
  uint16_t input_height, input_width, channels, output_height, output_width;
  uint8_t window_height, window_width, stride_height, stride_width, pad_top, pad_left;
  int8_t activation_min, activation_max;
} tfsparse_pooling;

void tfsparse_max_pool(const int8_t *input, const tfsparse_pooling *layer, int8_t *output);
void tfsparse_average_pool(const int8_t *input, const tfsparse_pooling *layer, int8_t *output);

/* The mean over all pixels of each channel, as LiteRT's operator MEAN: the sum is multiplied by
 * multiplier (Q31) and 2^shift, which contain 1 / pixels. bias is -input zero point * pixels. */
typedef struct {
  int32_t pixels, channels, bias, multiplier;
  int8_t shift, output_zero_point;
} tfsparse_averaging;

void tfsparse_mean(const int8_t *input, const tfsparse_averaging *layer, int8_t *output);

/* output[i] = table[i % channels][input[i] + 128]: any function of one value and its channel, such
 * as a multiplication by a constant, a requantization, or a rectification. In place if wanted. */
void tfsparse_look_up(const int8_t *input, const int8_t *table, int32_t channels, int32_t count,
                      int8_t *output);

/* Copies rows of `bytes` bytes, which begin `input_pitch` and `output_pitch` bytes apart: parts of
 * concatenations, splits, and slices of channels. */
void tfsparse_copy(const int8_t *input, int32_t input_pitch, int32_t bytes, int32_t rows,
                   int8_t *output, int32_t output_pitch);

#endif
