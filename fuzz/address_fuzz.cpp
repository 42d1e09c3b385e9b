// Addresses that came over the network or from a file that another machine wrote; host lists.
#include <string>

#include "base/error.h"
#include "cluster/launcher.h"
#include "net/rpc.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  const auto only = [](stoker::ErrorKind kind, const auto& body) {
    try {
      body();
    } catch (const stoker::Error& e) {
      if (e.kind() != kind) throw;
    }
  };
  only(stoker::ErrorKind::kUsage, [&] {
    const auto address = stoker::net::parse_address(text);
    const auto again = stoker::net::parse_address(address.text());
    STOKER_CHECK(again.host == address.host && again.port == address.port,
                 "an address changes when it is written");
  });
  only(stoker::ErrorKind::kUsage, [&] { (void)stoker::cluster::parse_hosts(text); });
  return 0;
}
