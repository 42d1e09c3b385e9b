// net/file_server.h
// A small HTTP server of files, read-only: GET and HEAD with ranges, so that a folder of datasets on one machine can be trained from on
// others. No TLS, no listing, no users: for a network that is trusted, or behind a proxy that adds them.
// Paths         below the root; ".." and hidden names are not there (404), folders neither
// Trouble       on purpose, for tests and measurements: every answer later by delay_s; answers cut short or refused by a hook
// Threads       one per connection, at most 32; stop() waits for them
// Errors        Usage: the root is no folder, the address is taken
#pragma once
#include <functional>
#include <memory>
#include <string>

namespace stoker::net {

struct FileServerOptions {
  std::string root;
  std::string host = "127.0.0.1";
  int port = 0;        // 0: any
  double delay_s = 0;  // before each answer
};

class FileServer {
 public:
  explicit FileServer(FileServerOptions options);  // listens when it returns
  ~FileServer();
  FileServer(const FileServer&) = delete;
  int port() const;
  std::string url() const;  // "http://127.0.0.1:8080"
  uint64_t requests() const;
  uint64_t bytes() const;  // sent
  void stop();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace stoker::net
