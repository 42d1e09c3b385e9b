// cli/command.h
// How a subcommand joins the program: it adds itself to the app and sets a callback that does the work and
// throws Error. Each add_* is defined in the file of its name (cmd_doctor.cpp ...); main.cpp calls them in
// the order --help shows.
#pragma once
#include <CLI/CLI.hpp>

namespace stoker::cli {

void add_bench(CLI::App& app);
void add_bench_tokenizer(CLI::App& bench_parent);
void add_ckpt(CLI::App& app);
void add_data(CLI::App& app);
void add_data_lineage(CLI::App& data_parent);
void add_data_shards(CLI::App& data_parent);
void add_data_build(CLI::App& data_parent);
void add_data_feed(CLI::App& data_parent);
void add_data_tokenizer(CLI::App& data_parent);
void add_doctor(CLI::App& app);
void add_report(CLI::App& app);
void add_train(CLI::App& app);
void add_eval(CLI::App& app);
void add_sample(CLI::App& app);
void add_bench_step(CLI::App& bench_parent);
void add_launch(CLI::App& app);
void add_join(CLI::App& app);
void add_scale(CLI::App& app);
void add_chaos(CLI::App& app);
void add_top(CLI::App& app);
void add_run_trace(CLI::App& app);
void add_coordinator(CLI::App& app);
void add_bench_comm(CLI::App& bench_parent);
void add_bench_feed(CLI::App& bench_parent);
void add_bench_plan(CLI::App& bench_parent);
void add_plan(CLI::App& app);
void add_plan_validate(CLI::App& plan);
void add_plan_fit(CLI::App& plan);
void add_plan_validate_energy(CLI::App& plan);
void add_plan_validate_ops(CLI::App& plan);
void add_plan_validate_failures(CLI::App& plan);
void add_plan_compare(CLI::App& plan);
void add_plan_calibrate(CLI::App& plan);
void add_plan_check(CLI::App& plan);
void add_plan_scale(CLI::App& plan);
void add_plan_search(CLI::App& plan);
void add_plan_whatif(CLI::App& plan);

}  // namespace stoker::cli
