// dash/terminal_plot.h
// Lines drawn in text: each character cell holds 2 x 4 dots (Braille patterns, U+2800). Axes are linear; the
// vertical range covers the given points. NaN and infinite points are left out. A series of single points
// (an evaluation every hundred steps) is drawn with 'o'.
#pragma once
#include <string>
#include <vector>

namespace stoker::dash {

struct PlotSeries {
  std::string name;
  std::vector<double> x, y;  // same length
  bool points = false;
};

struct PlotFrame {
  int columns = 72;  // of the drawing itself, without the axis labels
  int rows = 16;
  std::string title, x_label;
};

// Lines end with '\n'. Without any finite point: the title and "no finite value to draw".
std::string plot_terminal(const std::vector<PlotSeries>& series, const PlotFrame& frame);

}  // namespace stoker::dash
