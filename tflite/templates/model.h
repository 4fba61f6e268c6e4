// The model, its arena, and its input and output.
#ifndef MODEL_H_
#define MODEL_H_

#include <cstddef>
#include <cstdint>

extern const unsigned char g_model[];
extern const size_t g_model_size;

constexpr size_t kArenaBytes = ${arena};

// Input: int8, ${shape}. A pixel in [0, 1] becomes round(pixel / kInputScale) + kInputZeroPoint,
// clipped to [-128, 127].
constexpr float kInputScale = ${input_scale}f;
constexpr int kInputZeroPoint = ${input_zero_point};

// Output: the logit of each class is kOutputScale * (output - kOutputZeroPoint).
constexpr int kClasses = ${classes};
constexpr float kOutputScale = ${output_scale}f;
constexpr int kOutputZeroPoint = ${output_zero_point};
${names}
#endif  // MODEL_H_
