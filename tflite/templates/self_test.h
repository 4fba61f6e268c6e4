#ifndef SELF_TEST_H_
#define SELF_TEST_H_

#include <cstddef>
#include <cstdint>

// Runs the model on the images of test_data.h in an arena of kArenaBytes or more, aligned to 16
// bytes, which the application may use again afterwards. Returns how many outputs are not as
// expected, to the bit, or -1 where the model cannot be run.
int RunSelfTest(uint8_t* arena, size_t arena_bytes);

#endif  // SELF_TEST_H_
