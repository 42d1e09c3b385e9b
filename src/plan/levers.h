// plan/levers.h
// What each known saving would change in this plan: predicted by running the plan again with the lever
// pulled, or, where no model of it exists, by a published factor that is named. Factors      of time, energy
// and money are relative to the plan as it stands (0.8 saves a fifth); bands as in the figures Errors none: a
// lever that does not apply says why
#pragma once
#include <string>
#include <vector>

#include "plan/assess.h"

namespace stoker::plan {

struct Lever {
  std::string name, what;
  bool applies = true;
  std::string reason;                            // why it does not apply
  Band<double> time = Band<double>::exactly(1);  // of the whole run
  Band<double> energy = Band<double>::exactly(1);
  Band<double> money = Band<double>::exactly(1);
  double memory_gib = 0;  // change of the fullest accelerator
  std::string source;
};
std::vector<Lever> levers(const Assessment& base);

}  // namespace stoker::plan
