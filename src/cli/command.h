// cli/command.h
// How a subcommand joins the program: it adds itself to its parent and sets a callback that does the work and
// throws Error. Each add_* is defined in the file of its name (cmd_doctor.cpp ...); main.cpp calls them in
// the order --help shows.
//
// Command and Option are CLI11's App and Option behind functions that are compiled once: CLI11 is all templates
// and inline code, and 41 files that each compile it anew cost a third of the program's build.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace stoker::cli {

// One option, flag or positional of a command. The functions return the option, to be chained.
class Option {
 public:
  explicit Option(CLI::Option* option) : option_(option) {}
  Option* required();
  Option* capture_default_str();  // --help shows the variable's value of now
  Option* range(int lo, int hi);  // both ends allowed
  Option* range(int64_t lo, int64_t hi);
  Option* range(double lo, double hi);
  Option* positive();
  Option* size_suffix();   // takes 64k, 2MiB, 3GB: k, M, G are powers of 1024, kb the same
  Option* count_suffix();  // takes 350M, 15T: K, M, B, T are powers of 1000
  Option* group(const std::string& heading);
  Option* type_name(const std::string& name);
  Option* envname(const std::string& variable);
  Option* delimiter(char between);
  Option* one_each();  // a list's option is repeated, each time with one value
  size_t count() const;

 private:
  CLI::Option* option_;
};

// A command with its subcommands, or the whole program. Variables given to add_option and add_flag must live until
// the callback has run.
class Command {
 public:
  explicit Command(const std::string& description);  // the whole program
  ~Command();
  Command(const Command&) = delete;

  Command* add_subcommand(const std::string& name, const std::string& description);
  // For strings, numbers, std::optional and std::vector of them: the types that command.cpp lists.
  template <typename T>
  Option* add_option(const std::string& names, T& to, const std::string& help = "");
  Option* add_flag(const std::string& names, bool& to, const std::string& help = "");
  Command* footer(const std::string& text);
  Command* callback(std::function<void()> work);
  Command* require_subcommand(int at_least, int at_most);
  bool has_subcommand() const;  // after parsing: one of the subcommands was named

  // For main: the exit code of the command that `argv` names. Help and usage errors are printed.
  int run(int argc, char** argv, const std::string& version);

 private:
  explicit Command(CLI::App* app);
  Option* keep(CLI::Option* option);

  std::unique_ptr<CLI::App> program_;  // of the whole program; null in a subcommand
  CLI::App* app_;
  std::vector<std::unique_ptr<Command>> subcommands_;
  std::deque<Option> options_;  // a deque: pointers to them stay valid
};

// Thrown by a command that ends with another program's exit code.
struct ExitWith {
  int code;
};

void add_bench(Command& app);
void add_bench_tokenizer(Command& bench_parent);
void add_ckpt(Command& app);
void add_data(Command& app);
void add_data_lineage(Command& data_parent);
void add_data_shards(Command& data_parent);
void add_data_build(Command& data_parent);
void add_data_feed(Command& data_parent);
void add_data_tokenizer(Command& data_parent);
void add_doctor(Command& app);
void add_report(Command& app);
void add_train(Command& app);
void add_eval(Command& app);
void add_sample(Command& app);
void add_bench_step(Command& bench_parent);
void add_launch(Command& app);
void add_join(Command& app);
void add_scale(Command& app);
void add_chaos(Command& app);
void add_top(Command& app);
void add_run_trace(Command& app);
void add_flight(Command& app);
void add_coordinator(Command& app);
void add_bench_comm(Command& bench_parent);
void add_bench_feed(Command& bench_parent);
void add_bench_plan(Command& bench_parent);
void add_plan(Command& app);
void add_plan_validate(Command& plan);
void add_plan_fit(Command& plan);
void add_plan_validate_energy(Command& plan);
void add_plan_validate_ops(Command& plan);
void add_plan_validate_failures(Command& plan);
void add_plan_compare(Command& plan);
void add_plan_calibrate(Command& plan);
void add_plan_check(Command& plan);
void add_plan_scale(Command& plan);
void add_plan_search(Command& plan);
void add_plan_whatif(Command& plan);

}  // namespace stoker::cli
