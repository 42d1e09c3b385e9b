// Bytes of a stranger on a data port, to both sides of the greeting: none may pass, none may do harm.
#include <string>

#include "base/error.h"
#include "net/greeting.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using stoker::net::Greeting;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  Greeting listener("secret", "run/7", 0);
  const size_t first = std::min(size, Greeting::kCallBytes);
  if (listener.answer(text.substr(0, first)))
    STOKER_CHECK(!listener.accept(text.substr(first)), "a stranger was let in");
  Greeting caller("secret", "run/7", 1);
  (void)caller.call(0);
  STOKER_CHECK(!caller.prove(text), "a stranger was taken for the listener");
  return 0;
}
