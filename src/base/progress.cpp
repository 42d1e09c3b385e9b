#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <ctime>

#include "base/clock.h"

namespace stoker {
namespace {
std::string scaled(double value, const char* unit) {
  static constexpr const char* kPrefix[] = {"", "k", "M", "G", "T", "P", "E"};
  int p = 0;
  while (value >= 1000 && p < 6) value /= 1000, ++p;
  return p ? fmt::format("{:.2f} {}{}", value, kPrefix[p], unit) : fmt::format("{:g} {}", value, unit);
}
}  // namespace

std::string human_bytes(double bytes) { return scaled(bytes, "B"); }
std::string human_count(double count) {
  std::string text = scaled(count, "");
  while (!text.empty() && text.back() == ' ') text.pop_back();
  return text;
}
std::string human_duration(double s) {
  if (s < 1) return fmt::format("{:.0f} ms", s * 1e3);
  if (s < 60) return fmt::format("{:.1f} s", s);
  if (s < 3600) return fmt::format("{} m {} s", static_cast<int>(s) / 60, static_cast<int>(s) % 60);
  if (s < 86400) return fmt::format("{} h {} m", static_cast<int>(s) / 3600, static_cast<int>(s) / 60 % 60);
  return fmt::format("{:.1f} days", s / 86400);
}

Progress::Progress(std::string what, uint64_t total, std::string unit)
    : what_(std::move(what)),
      unit_(std::move(unit)),
      total_(total),
      started_s_(monotonic_s()),
      next_draw_s_(started_s_ + 0.2),
      terminal_(isatty(STDERR_FILENO)) {
  const char* env = std::getenv("STOKER_PROGRESS");
  quiet_ = env && std::strcmp(env, "0") == 0;
}
Progress::~Progress() { draw(true); }

void Progress::add(uint64_t amount) {
  done_ += amount;
  if (terminal_ && monotonic_s() >= next_draw_s_) draw(false);
}
void Progress::set(uint64_t done) {
  done_ = done;
  add(0);
}

void Progress::draw(bool last) {
  if (quiet_) return;
  std::unique_lock lock(drawing_, std::defer_lock);
  if (last) lock.lock();
  else if (!lock.try_lock()) return;
  next_draw_s_ = monotonic_s() + 0.1;
  const double done = static_cast<double>(done_.load()), elapsed = std::max(1e-9, monotonic_s() - started_s_);
  auto amount = [&](double v) { return unit_ == "B" ? human_bytes(v) : human_count(v) + " " + unit_; };
  std::string line = fmt::format("{:<22}", what_);
  if (total_ && !last) {
    const double f = std::min(1.0, done / static_cast<double>(total_));
    std::string bar(24, ' ');
    std::fill_n(bar.begin(), static_cast<int>(f * 24), '#');
    line += fmt::format(" [{}] {:3.0f} %  {} of {}", bar, f * 100, amount(done),
                        amount(static_cast<double>(total_)));
    if (f > 0.01) line += "  " + human_duration(elapsed * (1 - f) / f) + " left";
  } else {
    line += fmt::format(" {} in {}  ({}/s)", amount(done), human_duration(elapsed), amount(done / elapsed));
  }
  fmt::print(stderr, "{}{}{}", terminal_ ? "\r\033[K" : "", line, last ? "\n" : "");
  std::fflush(stderr);
}

std::string human_time(double unix_s) {
  const auto seconds = static_cast<std::time_t>(unix_s);
  std::tm parts{};
  localtime_r(&seconds, &parts);
  return fmt::format("{:02}:{:02}:{:02}", parts.tm_hour, parts.tm_min, parts.tm_sec);
}

}  // namespace stoker
