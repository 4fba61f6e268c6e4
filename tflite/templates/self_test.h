#ifndef SELF_TEST_H_
#define SELF_TEST_H_

#include <cstddef>
#include <cstdint>

// Runs the model on the images of test_data.h in an arena of at least kArenaBytes that is aligned
// to 16 bytes; the application may reuse it afterwards. Returns the number of images whose outputs
// are not bit-identical to the expected ones, or -1 if the model cannot run.
int RunSelfTest(uint8_t* arena, size_t arena_bytes);

#endif  // SELF_TEST_H_
