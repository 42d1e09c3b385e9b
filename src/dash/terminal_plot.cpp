#include "dash/terminal_plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/error.h"

namespace stoker::dash {
namespace {

struct Range {
  double low = std::numeric_limits<double>::infinity(), high = -std::numeric_limits<double>::infinity();
  void include(double v) { low = std::min(low, v), high = std::max(high, v); }
  bool empty() const { return low > high; }
  void widen_if_flat() {
    if (high > low) return;
    const double margin = std::max(std::abs(low) * 0.01, 1e-12);
    low -= margin, high += margin;
  }
  double share(double v) const { return (v - low) / (high - low); }
};

class Canvas {
 public:
  Canvas(int columns, int rows)
      : columns_(columns), rows_(rows), cells_(static_cast<size_t>(columns * rows)) {}

  int dots_wide() const { return columns_ * 2; }
  int dots_high() const { return rows_ * 4; }

  void dot(int x, int y) {  // y counts upwards
    static constexpr unsigned kBits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    y = dots_high() - 1 - y;
    cell(x / 2, y / 4) |= kBits[y % 4][x % 2];
  }
  void line(int x0, int y0, int x1, int y1) {
    const int steps = std::max({std::abs(x1 - x0), std::abs(y1 - y0), 1});
    for (int i = 0; i <= steps; ++i)
      dot(x0 + static_cast<int>(std::lround(static_cast<double>(x1 - x0) * i / steps)),
          y0 + static_cast<int>(std::lround(static_cast<double>(y1 - y0) * i / steps)));
  }
  void mark(int x, int y) { cell(x / 2, (dots_high() - 1 - y) / 4) = kMark; }

  std::string row(int r) const {
    std::string text;
    for (int c = 0; c < columns_; ++c) {
      const unsigned bits = cells_[static_cast<size_t>(r * columns_ + c)];
      if (bits == kMark) text += 'o';
      else if (bits == 0) text += ' ';
      else  // UTF-8 of U+2800 + bits
        text += {'\xe2', static_cast<char>(0xa0 + (bits >> 6)), static_cast<char>(0x80 + (bits & 63))};
    }
    text.erase(text.find_last_not_of(' ') + 1);
    return text;
  }

 private:
  static constexpr unsigned kMark = 0x100;
  unsigned& cell(int column, int row) { return cells_[static_cast<size_t>(row * columns_ + column)]; }
  int columns_, rows_;
  std::vector<unsigned> cells_;
};

void draw(Canvas& canvas, const PlotSeries& series, const Range& x, const Range& y) {
  bool drawing = false;
  int last_x = 0, last_y = 0;
  for (size_t i = 0; i < series.x.size(); ++i) {
    if (!std::isfinite(series.x[i]) || !std::isfinite(series.y[i])) {
      drawing = false;
      continue;
    }
    const int px = static_cast<int>(std::lround(x.share(series.x[i]) * (canvas.dots_wide() - 1)));
    const int py = static_cast<int>(std::lround(y.share(series.y[i]) * (canvas.dots_high() - 1)));
    if (series.points) canvas.mark(px, py);
    else if (drawing) canvas.line(last_x, last_y, px, py);
    else canvas.dot(px, py);
    drawing = true, last_x = px, last_y = py;
  }
}

}  // namespace

std::string plot_terminal(const std::vector<PlotSeries>& series, const PlotFrame& frame) {
  STOKER_CHECK(frame.columns >= 2 && frame.rows >= 2, "{} x {}", frame.columns, frame.rows);
  Range x, y;
  for (const PlotSeries& s : series) {
    STOKER_CHECK(s.x.size() == s.y.size(), "series {}: {} x, {} y", s.name, s.x.size(), s.y.size());
    for (size_t i = 0; i < s.x.size(); ++i)
      if (std::isfinite(s.x[i]) && std::isfinite(s.y[i])) x.include(s.x[i]), y.include(s.y[i]);
  }
  std::string text = frame.title + '\n';
  if (x.empty()) return text + "  no finite value to draw\n";
  x.widen_if_flat(), y.widen_if_flat();
  Canvas canvas(frame.columns, frame.rows);
  for (const PlotSeries& s : series)
    if (!s.points) draw(canvas, s, x, y);
  for (const PlotSeries& s : series)
    if (s.points) draw(canvas, s, x, y);  // marks stay visible over lines
  for (int r = 0; r < frame.rows; ++r) {
    const bool labelled = r % 5 == 0 || r == frame.rows - 1;
    const double at = y.high - (y.high - y.low) * r / (frame.rows - 1);
    text += fmt::format("{:>9} {}{}\n", labelled ? fmt::format("{:.4g}", at) : "", labelled ? "┤" : "│",
                        canvas.row(r));
  }
  const std::string right = fmt::format("{:.6g} {}", x.high, frame.x_label);
  const std::string left = fmt::format("{:.6g}", x.low);
  const int gap = std::max(1, frame.columns - static_cast<int>(left.size() + right.size()));
  text += fmt::format("{:>10}└", "");
  for (int c = 0; c < frame.columns; ++c) text += "─";
  text += fmt::format("\n{:>11}{}{:{}}{}\n", "", left, "", gap, right);
  return text;
}

}  // namespace stoker::dash
