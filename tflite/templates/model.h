// The model and the constants needed to run it.
#ifndef MODEL_H_
#define MODEL_H_

#include <cstddef>
#include <cstdint>

extern const unsigned char g_model[];
extern const size_t g_model_size;

constexpr size_t kArenaBytes = $arena;

// Input: int8, $shape. A pixel in [0, 1] is round(pixel / kInputScale) + kInputZeroPoint, or
// the nearer of -128 and 127 if that is out of their range.
constexpr float kInputScale = ${input_scale}f;
constexpr int kInputZeroPoint = $input_zero_point;

// Output: a logit for each class is kOutputScale * (output - kOutputZeroPoint).
constexpr int kClasses = $classes;
constexpr float kOutputScale = ${output_scale}f;
constexpr int kOutputZeroPoint = $output_zero_point;
$names
#endif  // MODEL_H_
