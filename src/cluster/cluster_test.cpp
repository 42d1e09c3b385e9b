#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <thread>

#include "base/clock.h"
#include "base/error.h"
#include "cluster/kubernetes.h"
#include "cluster/launcher.h"
#include "cluster/place.h"

namespace stoker::cluster {
namespace {

Environment fake(std::map<std::string, std::string> values) {
  return [values](const std::string& name) -> std::optional<std::string> {
    const auto found = values.find(name);
    return found == values.end() ? std::nullopt : std::optional(found->second);
  };
}

TEST(Place, SlurmStep) {
  const Place p = find_place(fake({{"SLURM_PROCID", "3"},
                                   {"SLURM_NTASKS", "4"},
                                   {"SLURM_STEP_ID", "0"},
                                   {"SLURM_JOB_ID", "17"},
                                   {"SLURM_LOCALID", "1"},
                                   {"SLURMD_NODENAME", "n1"},
                                   {"PMIX_RANK", "3"}}));
  EXPECT_EQ(p.starter, Starter::kSlurm);
  EXPECT_EQ(p.rank, 3);
  EXPECT_EQ(p.size, 4);
  EXPECT_EQ(p.node, "n1");
  EXPECT_EQ(p.worker, "j17.0.0.r3");
}

TEST(Place, ARequeuedJobHasOtherWorkerNames) {
  std::map<std::string, std::string> env{
      {"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "2"}, {"SLURM_STEP_ID", "0"}, {"SLURM_JOB_ID", "17"}};
  const std::string first = find_place(fake(env)).worker;
  env["SLURM_RESTART_COUNT"] = "1";
  EXPECT_NE(first, find_place(fake(env)).worker);
}

TEST(Place, ContradictionsAreRefused) {
  const std::map<std::string, std::string> base{
      {"SLURM_PROCID", "1"}, {"SLURM_NTASKS", "2"}, {"SLURM_STEP_ID", "0"}, {"SLURM_JOB_ID", "1"}};
  auto pmix = base, big = base, text = base;
  pmix["PMIX_RANK"] = "0";
  big["SLURM_PROCID"] = "2";
  text["SLURM_PROCID"] = "x";
  for (const auto& env : {pmix, big, text}) EXPECT_THROW(find_place(fake(env)), Error);
  EXPECT_THROW(find_place(fake({{"STOKER_COORDINATOR", "a:1"}})), Error);
}

TEST(Place, ALaunchedWorkerKnowsHowManyShareItsHost) {
  const Place p = find_place(fake({{"STOKER_COORDINATOR", "a:1"},
                                   {"STOKER_WORKER", "w5.0"},
                                   {"STOKER_LOCAL_RANK", "1"},
                                   {"STOKER_LOCAL_WORKERS", "4"}}));
  EXPECT_EQ(p.starter, Starter::kLaunch);
  EXPECT_EQ(p.local_rank, 1);
  EXPECT_EQ(p.local_workers, 4);
}

TEST(Place, OneTaskOrNothingIsASingleProcess) {
  EXPECT_EQ(find_place(fake({})).starter, Starter::kNone);
  EXPECT_EQ(find_place(fake({{"SLURM_PROCID", "0"}, {"SLURM_STEP_ID", "0"}, {"SLURM_NTASKS", "1"}})).starter,
            Starter::kNone);
}

TEST(Place, Kubernetes) {
  const Place p = find_place(fake({{"JOB_COMPLETION_INDEX", "2"},
                                   {"STOKER_COORDINATOR", "c:7070"},
                                   {"STOKER_WORKERS", "4"},
                                   {"HOSTNAME", "run-2-x7k"}}));
  EXPECT_EQ(p.starter, Starter::kKubernetes);
  EXPECT_EQ(p.worker, "k2.run-2-x7k");
}

TEST(NodeList, Expands) {
  EXPECT_EQ(expand_node_list("n[1-3,7],m05"), (std::vector<std::string>{"n1", "n2", "n3", "n7", "m05"}));
  EXPECT_EQ(expand_node_list("n[08-10]-ib"), (std::vector<std::string>{"n08-ib", "n09-ib", "n10-ib"}));
  for (const char* bad :
       {"", "n[", "n]", "n[3-1]", "n[a]", "a,,b", "n[1]x[2]", "n[0-999999999]", "n[]", "n[1-]"})
    EXPECT_THROW(expand_node_list(bad), Error) << bad;
}

TEST(Hosts, Parse) {
  EXPECT_EQ(parse_hosts("a,b:4,user@c:2"), (std::vector<HostSlots>{{"a", 1}, {"b", 4}, {"user@c", 2}}));
  for (const char* bad : {"", "a,", "a:0", "a:x", "-oProxyCommand=x", "a b", "a;b", "a:99999"})
    EXPECT_THROW(parse_hosts(bad), Error) << bad;
}

TEST(Hosts, TheTokenStaysOffTheCommandLine) {
  const auto words = ssh_command("h", {"stoker", "train", "it's.toml"}, {{"STOKER_WORKER", "w0.0"}}, {"ssh"});
  EXPECT_EQ(words.front(), "ssh");
  EXPECT_EQ(words[words.size() - 2], "h");
  EXPECT_NE(words.back().find("'it'\\''s.toml'"), std::string::npos);
  EXPECT_NE(words.back().find("read -r STOKER_TOKEN"), std::string::npos);
}

struct Directory {
  Directory()
      : path((std::filesystem::temp_directory_path() / fmt::format("stoker_launch_{}_{}", getpid(), next++))
                 .string()) {
    std::filesystem::create_directories(path);
  }
  ~Directory() { std::filesystem::remove_all(path); }
  std::string path;
  static inline int next = 0;
};

std::string slurp(const std::string& path) {
  std::ifstream in(path);
  return {std::istreambuf_iterator<char>(in), {}};
}

TEST(Processes, StartReapSignal) {
  Directory dir;
  Processes processes;
  processes.start({"ok",
                   {"/bin/sh", "-c", "echo $GREETING; read line; echo got $line; exit 7"},
                   {{"GREETING", "hello"}},
                   dir.path + "/ok.log",
                   "secret\n"});
  processes.start({"sleeper", {"/bin/sleep", "60"}, {}, dir.path + "/s.log", ""});
  processes.signal("sleeper", SIGKILL);
  std::map<std::string, ProcessExit> ended;
  for (const double end = monotonic_s() + 10; ended.size() < 2 && monotonic_s() < end;) {
    for (auto& e : processes.reap()) ended[e.name] = e;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_EQ(ended["ok"].exit_code, 7);
  EXPECT_EQ(ended["sleeper"].signal, SIGKILL);
  EXPECT_EQ(slurp(dir.path + "/ok.log"), "hello\ngot secret\n");
}

TEST(Processes, EndAllEndsEvenAStoppedOne) {
  Directory dir;
  Processes processes;
  const pid_t pid = processes.start({"s", {"/bin/sleep", "60"}, {}, dir.path + "/s.log", ""});
  kill(pid, SIGSTOP);
  EXPECT_EQ(processes.end_all(2).size(), 1u);
  EXPECT_EQ(kill(pid, 0), -1);
}

struct Scene {
  Directory dir;
  std::vector<std::string> said, ended, fenced;
  bool finished = false;
  std::optional<Demand> demand;
  LaunchPlan plan(int workers, const std::string& worker_script) {
    LaunchPlan p;
    p.workers = workers;
    p.run_dir = dir.path;
    p.token = "t";
    p.worker_command = {"/bin/sh", "-c", worker_script};
    p.coordinator_command = {"/bin/sh", "-c",
                             "echo 127.0.0.1:1 > " + dir.path + "/coordinator; exec sleep 60"};
    p.restart_pause_s = 0;
    p.grace_s = 1;
    p.zombie_grace_s = 0.2;
    return p;
  }
  LaunchHooks hooks() {
    return {[this](const ProcessExit& e) { ended.push_back(e.name); },
            [this] { return fenced; },
            [this] { return finished; },
            [this](const std::string& why) { said.push_back("stop: " + why); },
            [] { return true; },
            [this](const std::vector<std::string>&) { return demand; },
            [this](const std::string& line) { said.push_back(line); }};
  }
};

TEST(Launcher, ReplacesALostWorkerUnderANewName) {
  Scene scene;
  // The first incarnation of w1 is killed; everyone else ends well.
  Launcher launcher(scene.plan(2, "if [ $STOKER_WORKER = w1.0 ]; then kill -9 $$; fi; exit 0"),
                    scene.hooks());
  launcher.start_coordinator();
  EXPECT_EQ(launcher.address(), "127.0.0.1:1");
  scene.finished = false;
  launcher.start_workers();
  for (const double end = monotonic_s() + 10; launcher.step() && monotonic_s() < end;)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_EQ(std::set<std::string>(scene.ended.begin(), scene.ended.end()),
            (std::set<std::string>{"w0.0", "w1.0", "w1.1"}));
  EXPECT_EQ(launcher.restarts(), 1);
  EXPECT_EQ(launcher.exit_code(), 0);
}

TEST(Launcher, AWorkerThatEndsAtOnceAgainAndAgainIsToldOfOnce) {
  Scene scene;
  LaunchPlan plan = scene.plan(1, "echo no way there; exit 255");
  plan.max_restarts = 5;
  Launcher launcher(plan, scene.hooks());
  launcher.start_coordinator();
  EXPECT_EQ(launcher.run(), 69);
  EXPECT_EQ(launcher.restarts(), 5);
  EXPECT_EQ(std::count_if(scene.said.begin(), scene.said.end(),
                          [](const std::string& s) {
                            return s.find("the third in a row") != std::string::npos &&
                                   s.ends_with("no way there");
                          }),
            1);
  ASSERT_FALSE(scene.said.empty());
  EXPECT_NE(scene.said.back().find("used up. Its log ends with: no way there"), std::string::npos);
}

TEST(Launcher, AUsageErrorEndsTheRunAndIsNotRepeated) {
  Scene scene;
  Launcher launcher(scene.plan(2, "if [ $STOKER_WORKER = w0.0 ]; then exit 64; fi; exit 75"), scene.hooks());
  launcher.start_coordinator();
  EXPECT_EQ(launcher.run(), 64);
  EXPECT_EQ(launcher.restarts(), 0);
}

TEST(Launcher, AFencedZombieIsReplacedAtOnceAndKilledLater) {
  Scene scene;
  Launcher launcher(scene.plan(1, "if [ $STOKER_WORKER = w0.0 ]; then exec sleep 60; fi; exit 0"),
                    scene.hooks());
  launcher.start_coordinator();
  launcher.start_workers();
  scene.fenced = {"w0.0"};
  for (const double end = monotonic_s() + 10; launcher.step() && monotonic_s() < end;)
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  EXPECT_EQ(launcher.restarts(), 1);
  launcher.processes().end_all(1);
}

// A place that nobody takes for a while is filled; spares and workers of others count; what the coordinator does not say is not guessed.
TEST(Launcher, ARunThatWantsMoreWorkersGetsThem) {
  Scene scene;
  Launcher launcher(scene.plan(1, "exec sleep 60"), scene.hooks());
  launcher.start_coordinator();
  launcher.start_workers();
  const auto running_after = [&](std::optional<Demand> demand, size_t expected, double seconds) {
    scene.demand = demand;
    for (const double end = monotonic_s() + seconds;
         monotonic_s() < end && (launcher.workers().size() != expected || seconds < 5);) {
      launcher.step();
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return launcher.workers().size();
  };
  EXPECT_EQ(running_after(std::nullopt, 1, 1.5), 1u);
  EXPECT_EQ(running_after(Demand{2, 1}, 1, 1.5), 1u);
  EXPECT_EQ(running_after(Demand{3, 0}, 3, 20), 3u);
  // One that has left as agreed makes a slot free; its next worker has a name of its own.
  launcher.processes().signal("w1.0", SIGTERM);
  EXPECT_EQ(running_after(Demand{3, 0}, 3, 1.5), 3u);
  EXPECT_EQ(launcher.workers(), (std::vector<std::string>{"w0.0", "w1.1", "w2.0"}));
  launcher.processes().end_all(1);
}

TEST(Launcher, ADeadCoordinatorIsStartedAgain) {
  Scene scene;
  Launcher launcher(scene.plan(1, "exec sleep 60"), scene.hooks());
  launcher.start_coordinator();
  launcher.start_workers();
  const pid_t before = launcher.processes().pid("coordinator");
  launcher.processes().signal("coordinator", SIGKILL);
  for (const double end = monotonic_s() + 10; monotonic_s() < end;) {
    launcher.step();
    const pid_t now = launcher.processes().pid("coordinator");
    if (now != 0 && now != before) break;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  EXPECT_NE(launcher.processes().pid("coordinator"), before);
  EXPECT_EQ(launcher.processes().count(), 2u);
}

TEST(Kubernetes, BadNamesAreRefused) {
  KubernetesRun run;
  run.name = "Run_1";
  run.image = "stoker:1";
  EXPECT_THROW(render_kubernetes(run), Error);
  run.name = "run-1";
  run.image = "";
  EXPECT_THROW(render_kubernetes(run), Error);
  run.image = "stoker:1";
  run.workers = 0;
  EXPECT_THROW(render_kubernetes(run), Error);
}

}  // namespace
}  // namespace stoker::cluster
