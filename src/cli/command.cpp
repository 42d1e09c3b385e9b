#include "cli/command.h"

#include <fmt/core.h>

#include <CLI/CLI.hpp>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <string_view>

#include "base/edit_distance.h"
#include "base/error.h"

namespace stoker::cli {
namespace {

// The words of the command that was being read, like "stoker data prepare", and the command itself.
std::pair<std::string, const CLI::App*> command_being_read(const CLI::App& program) {
  std::string words = "stoker";
  const CLI::App* at = &program;
  while (!at->get_subcommands().empty()) {
    at = at->get_subcommands().back();
    words += " " + at->get_name();
  }
  return {words, at};
}

std::string usage_message(const CLI::App& program, const CLI::ParseError& error) {
  const auto [words, command] = command_being_read(program);
  std::vector<std::string> known;
  const std::vector<std::string> left = program.remaining(true);
  const std::string unknown = left.empty() || left.front() == "--" ? "" : left.front();
  const bool option = unknown.starts_with("-");
  if (option)
    for (const CLI::Option* o : command->get_options()) known.push_back(o->get_name());
  else
    for (const CLI::App* c : command->get_subcommands([](const CLI::App*) { return true; }))
      known.push_back(c->get_name());
  if (unknown.empty() || known.empty()) return fmt::format("{}. {} --help shows how", error.what(), words);
  return fmt::format("{} has no {} '{}'. Did you mean {}? {} --help lists them", words,
                     option ? "option" : "command", unknown, nearest_name(unknown, known), words);
}

}  // namespace

Option* Option::required() {
  option_->required();
  return this;
}
Option* Option::capture_default_str() {
  option_->capture_default_str();
  return this;
}
Option* Option::range(int lo, int hi) {
  option_->check(CLI::Range(lo, hi));
  return this;
}
Option* Option::range(int64_t lo, int64_t hi) {
  option_->check(CLI::Range(lo, hi));
  return this;
}
Option* Option::range(double lo, double hi) {
  option_->check(CLI::Range(lo, hi));
  return this;
}
Option* Option::positive() {
  option_->check([](const std::string& text) {
    char* end = nullptr;
    const bool fine = std::strtod(text.c_str(), &end) > 0 && *end == 0;
    return fine ? "" : "'" + text + "' is not a number above 0";
  });
  return this;
}
Option* Option::size_suffix() {
  option_->transform(CLI::AsSizeValue(false));
  return this;
}
Option* Option::count_suffix() {
  option_->transform(
      [](const std::string& text) {
        constexpr std::string_view kUnits = "kmbt";
        char* unit = nullptr;
        const double number = std::strtod(text.c_str(), &unit);
        const std::string_view rest(unit);
        if (rest.empty()) return text;
        const size_t power =
            kUnits.find(static_cast<char>(std::tolower(static_cast<unsigned char>(rest[0]))));
        if (unit == text.c_str() || rest.size() != 1 || power == kUnits.npos)
          throw CLI::ValidationError("'" + text +
                                     "': expected a number, K, M, B or T behind it or not, like 15T");
        return fmt::format("{:.17g}", number * std::pow(1000.0, static_cast<double>(power + 1)));
      },
      "");
  return this;
}
Option* Option::group(const std::string& heading) {
  option_->group(heading);
  return this;
}
Option* Option::type_name(const std::string& name) {
  option_->type_name(name);
  return this;
}
Option* Option::envname(const std::string& variable) {
  option_->envname(variable);
  return this;
}
Option* Option::delimiter(char between) {
  option_->delimiter(between);
  return this;
}
Option* Option::one_each() {
  option_->take_all()->allow_extra_args(false);
  return this;
}
size_t Option::count() const { return option_->count(); }

Command::Command(const std::string& description)
    : program_(std::make_unique<CLI::App>(description)), app_(program_.get()) {
  app_->get_formatter()->column_width(34);
}
Command::Command(CLI::App* app) : app_(app) {}
Command::~Command() = default;

Option* Command::keep(CLI::Option* option) { return &options_.emplace_back(option); }

Command* Command::add_subcommand(const std::string& name, const std::string& description) {
  subcommands_.emplace_back(new Command(app_->add_subcommand(name, description)));
  return subcommands_.back().get();
}

template <typename T>
Option* Command::add_option(const std::string& names, T& to, const std::string& help) {
  return keep(app_->add_option(names, to, help));
}
#define STOKER_OPTION_OF(...) \
  template Option* Command::add_option(const std::string&, __VA_ARGS__&, const std::string&)
STOKER_OPTION_OF(std::string);
STOKER_OPTION_OF(int);
STOKER_OPTION_OF(int64_t);
STOKER_OPTION_OF(uint64_t);
STOKER_OPTION_OF(uint32_t);
STOKER_OPTION_OF(uint16_t);
STOKER_OPTION_OF(float);
STOKER_OPTION_OF(double);
STOKER_OPTION_OF(std::optional<int>);
STOKER_OPTION_OF(std::optional<int64_t>);
STOKER_OPTION_OF(std::optional<uint64_t>);
STOKER_OPTION_OF(std::optional<double>);
STOKER_OPTION_OF(std::optional<std::string>);
STOKER_OPTION_OF(std::vector<std::string>);
STOKER_OPTION_OF(std::vector<int>);
STOKER_OPTION_OF(std::vector<int64_t>);
STOKER_OPTION_OF(std::vector<uint64_t>);
STOKER_OPTION_OF(std::vector<double>);
#undef STOKER_OPTION_OF

Option* Command::add_flag(const std::string& names, bool& to, const std::string& help) {
  return keep(app_->add_flag(names, to, help));
}

Command* Command::footer(const std::string& text) {
  app_->footer(text);
  return this;
}
Command* Command::callback(std::function<void()> work) {
  app_->callback(std::move(work));
  return this;
}
Command* Command::require_subcommand(int at_least, int at_most) {
  app_->require_subcommand(static_cast<size_t>(at_least), static_cast<size_t>(at_most));
  return this;
}
bool Command::has_subcommand() const { return !app_->get_subcommands().empty(); }

int Command::run(int argc, char** argv, const std::string& version) {
  app_->set_version_flag("--version", version);
  try {
    app_->parse(argc, argv);
  } catch (const ExitWith& end) {
    return end.code;
  } catch (const CLI::ParseError& e) {
    if (e.get_exit_code() == 0) return app_->exit(e);  // --help and --version
    fail(ErrorKind::kUsage, "{}.", usage_message(*app_, e));
  }
  return 0;
}

}  // namespace stoker::cli
