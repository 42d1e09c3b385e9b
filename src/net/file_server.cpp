#include "net/file_server.h"

#include <fcntl.h>
#include <httplib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "base/error.h"

namespace stoker::net {
namespace {

// Below the root, and no way out of it: no part is empty, ".", ".." or hidden.
bool is_inside(const std::string& path) {
  for (size_t begin = 0; begin <= path.size();) {
    size_t end = path.find('/', begin);
    if (end == std::string::npos) end = path.size();
    if (end == begin || path[begin] == '.') return false;
    begin = end + 1;
  }
  return path.find('\0') == std::string::npos;
}

// Connections that are served at a time. A worker keeps up to forty open for two seconds each (stages of training and held-out data).
constexpr size_t kConnections = 512;

struct Opened {
  explicit Opened(const std::string& path) : fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC)) {
    struct stat s {};
    if (fd >= 0 && ::fstat(fd, &s) == 0 && S_ISREG(s.st_mode))
      size = static_cast<size_t>(s.st_size), good = true;
  }
  ~Opened() {
    if (fd >= 0) ::close(fd);
  }
  Opened(const Opened&) = delete;
  int fd;
  size_t size = 0;
  bool good = false;
};

}  // namespace

struct FileServer::State {
  FileServerOptions options;
  httplib::Server server;
  std::thread thread;
  int port = 0;
  std::atomic<uint64_t> requests{0}, bytes{0};

  void answer(const httplib::Request& request, httplib::Response& response) {
    ++requests;
    if (options.delay_s > 0) std::this_thread::sleep_for(std::chrono::duration<double>(options.delay_s));
    const std::string path = request.matches[1];
    const auto file = is_inside(path) ? std::make_shared<Opened>(options.root + "/" + path) : nullptr;
    if (!file || !file->good) {
      response.status = 404;
      return;
    }
    if (file->size == 0) {
      response.set_content("", "application/octet-stream");
      return;
    }
    response.set_content_provider(file->size, "application/octet-stream",
                                  [this, file](size_t offset, size_t length, httplib::DataSink& sink) {
                                    char buffer[1 << 16];
                                    const ssize_t n =
                                        ::pread(file->fd, buffer, std::min(length, sizeof buffer),
                                                static_cast<off_t>(offset));
                                    if (n <= 0) return false;
                                    bytes += static_cast<uint64_t>(n);
                                    return sink.write(buffer, static_cast<size_t>(n));
                                  });
  }
};

FileServer::FileServer(FileServerOptions options) : state_(std::make_unique<State>()) {
  struct stat s {};
  if (::stat(options.root.c_str(), &s) != 0 || !S_ISDIR(s.st_mode))
    fail(ErrorKind::kUsage, "serve: {}: there is no such folder", options.root);
  State& state = *state_;
  state.options = std::move(options);
  state.server.new_task_queue = [] { return new httplib::ThreadPool(kConnections); };
  state.server.set_keep_alive_max_count(1'000'000);
  state.server.set_keep_alive_timeout(2);
  state.server.set_tcp_nodelay(true);
  state.server.Get(R"(/(.+))", [&state](const httplib::Request& request, httplib::Response& response) {
    state.answer(request, response);
  });
  const std::string& host = state.options.host;
  if (state.options.port == 0) state.port = state.server.bind_to_any_port(host.c_str());
  else state.port = state.server.bind_to_port(host.c_str(), state.options.port) ? state.options.port : -1;
  if (state.port < 0)
    fail(ErrorKind::kUsage, "serve: cannot listen at {}:{}: is the port taken?", host, state.options.port);
  state.thread = std::thread([&state] { state.server.listen_after_bind(); });
  while (!state.server.is_running()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
}

FileServer::~FileServer() { stop(); }

void FileServer::stop() {
  if (!state_->thread.joinable()) return;
  state_->server.stop();
  state_->thread.join();
}

int FileServer::port() const { return state_->port; }
std::string FileServer::url() const {
  return fmt::format("http://{}:{}", state_->options.host, state_->port);
}
uint64_t FileServer::requests() const { return state_->requests; }
uint64_t FileServer::bytes() const { return state_->bytes; }

}  // namespace stoker::net
