// plan/figures.h
// The planner's book of assumptions: every price, power share and life that is not a property of the model or
// the chip, as low / mid / high with its date, source and kind (published, fitted, derived, assumption).
// Money runs with the low ends together for the cheap end of a band, so keys where more is cheaper (life,
// discount) hold the larger number as low. Errors   Usage: unknown key (nearest ones offered), a negative or
// non-finite override. Data: a malformed catalog
#pragma once
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "plan/band.h"

namespace stoker::plan {

struct Figure {
  Band<double> value;
  std::string unit, kind, date, source;
};

class FigureBook {
 public:
  static FigureBook read(std::string_view name, std::string_view csv);
  static FigureBook built_in();

  const Band<double>& at(std::string_view key) const;
  const Figure& figure(std::string_view key) const;
  bool has(std::string_view key) const { return figures_.contains(std::string(key)); }
  void set(std::string_view key, double value);  // an exact figure of the user's own
  const std::map<std::string, Figure>& all() const { return figures_; }

 private:
  std::map<std::string, Figure> figures_;
};

}  // namespace stoker::plan
