// The operators of the model only.
#ifndef OPERATORS_H_
#define OPERATORS_H_

#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"

using OperatorResolver = tflite::MicroMutableOpResolver<${operators}>;

inline TfLiteStatus RegisterOperators(OperatorResolver& resolver) {
${calls}
  return kTfLiteOk;
}

#endif  // OPERATORS_H_
