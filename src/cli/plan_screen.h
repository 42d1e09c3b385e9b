// cli/plan_screen.h
// A plan for people: one screen, its explanation term by term, and small tables of several plans.
#pragma once
#include <string>

#include "plan/assess.h"
#include "plan/levers.h"

namespace stoker::cli {

std::string plan_screen(const plan::Assessment& a);
std::string plan_explanation(const plan::Assessment& a);  // every number down to its terms and sources
// What published runs of its kind say of a step's range, in one line without a break.
std::string range_note(const plan::Prediction& prediction);
std::string lever_table(const plan::Assessment& a, const std::vector<plan::Lever>& levers);

// "12.3 M", "4.5 T": counts in thousands; three digits.
std::string human_count(double value);
std::string human_days(Seconds s);                     // "3.2 h", "11.4 days"
std::string human_dollars(double usd);                 // "$1.23 M"
std::string dollars_band(const plan::PathCost& cost);  // "$1.23 M ($1.1 M to $1.5 M)"

}  // namespace stoker::cli
