#include "cluster/kubernetes.h"

#include <algorithm>
#include <cctype>
#include <nlohmann/json.hpp>

#include "base/error.h"

namespace stoker::cluster {
namespace {
using nlohmann::ordered_json;
constexpr int kPort = 7070;
constexpr const char* kRunDirectory = "/run/stoker/run";

bool is_label(const std::string& s, size_t most) {
  const auto good = [](char c) {
    return std::islower(static_cast<unsigned char>(c)) || std::isdigit(static_cast<unsigned char>(c));
  };
  return !s.empty() && s.size() <= most && good(s.front()) && good(s.back()) &&
         std::all_of(s.begin(), s.end(), [&](char c) { return good(c) || c == '-'; });
}

void check(const KubernetesRun& run) {
  if (!is_label(run.name, 40))
    fail(ErrorKind::kUsage, "Kubernetes name '{}': expected at most 40 of a-z, 0-9 and '-', not at the ends",
         run.name);
  if (!is_label(run.name_space, 63))
    fail(ErrorKind::kUsage, "Kubernetes namespace '{}' is not a valid label", run.name_space);
  if (run.image.empty() || run.image.find_first_of(" \t\n") != std::string::npos)
    fail(ErrorKind::kUsage, "container image '{}': expected a reference such as registry/stoker:0.1",
         run.image);
  if (run.workers < 1 || run.minimum < 1 || run.minimum > run.workers || run.gpus_per_worker < 0)
    fail(ErrorKind::kUsage, "{} workers with a minimum of {}: expected 1 <= minimum <= workers", run.workers,
         run.minimum);
}

ordered_json pod(const KubernetesRun& run, ordered_json container, const char* restart_policy) {
  container["image"] = run.image;
  container["volumeMounts"] = {{{"name", "run"}, {"mountPath", kRunDirectory}},
                               {{"name", "shm"}, {"mountPath", "/dev/shm"}}};
  ordered_json spec{
      {"restartPolicy", restart_policy}, {"terminationGracePeriodSeconds", 60}, {"subdomain", run.name}};
  ordered_json run_volume{{"name", "run"}};
  if (run.volume_claim.empty()) run_volume["emptyDir"] = ordered_json::object();
  else run_volume["persistentVolumeClaim"] = {{"claimName", run.volume_claim}};
  spec["volumes"] = {run_volume, {{"name", "shm"}, {"emptyDir", {{"medium", "Memory"}}}}};
  if (!run.node_selector.empty()) spec["nodeSelector"] = run.node_selector;
  spec["containers"] = ordered_json::array({container});
  return spec;
}

ordered_json variable(const char* name, const std::string& value) {
  return {{"name", name}, {"value", value}};
}
ordered_json field(const char* name, const char* path) {
  return {{"name", name}, {"valueFrom", {{"fieldRef", {{"fieldPath", path}}}}}};
}
ordered_json token(const KubernetesRun& run) {
  return {{"name", "STOKER_TOKEN"},
          {"valueFrom", {{"secretKeyRef", {{"name", run.name}, {"key", "token"}}}}}};
}
ordered_json labels(const KubernetesRun& run, const char* part) {
  return {{"app.kubernetes.io/name", "stoker"},
          {"app.kubernetes.io/instance", run.name},
          {"app.kubernetes.io/component", part}};
}
ordered_json metadata(const KubernetesRun& run, const std::string& name, const char* part) {
  return {{"name", name}, {"namespace", run.name_space}, {"labels", labels(run, part)}};
}

ordered_json coordinator(const KubernetesRun& run) {
  ordered_json container{{"name", "coordinator"}};
  container["command"] = {"stoker",    "coordinator",
                          "--run",     kRunDirectory,
                          "--workers", std::to_string(run.workers),
                          "--minimum", std::to_string(run.minimum),
                          "--listen",  "0.0.0.0",
                          "--port",    std::to_string(kPort)};
  container["env"] = ordered_json::array({token(run)});
  container["ports"] = {{{"containerPort", kPort}, {"protocol", "TCP"}}};
  container["readinessProbe"] = {{"tcpSocket", {{"port", kPort}}}, {"periodSeconds", 2}};
  container["resources"] = {{"requests", {{"cpu", "100m"}, {"memory", "128Mi"}}}};
  return {{"apiVersion", "apps/v1"},
          {"kind", "Deployment"},
          {"metadata", metadata(run, run.name + "-coordinator", "coordinator")},
          {"spec",
           {{"replicas", 1},
            {"strategy", {{"type", "Recreate"}}},
            {"selector", {{"matchLabels", labels(run, "coordinator")}}},
            {"template",
             {{"metadata", {{"labels", labels(run, "coordinator")}}},
              {"spec", pod(run, container, "Always")}}}}}};
}

ordered_json job(const KubernetesRun& run) {
  ordered_json container{{"name", "worker"}};
  container["command"] = {"stoker", "train"};
  for (const std::string& a : run.train_arguments) container["command"].push_back(a);
  for (const std::string& a : {std::string("--set"), fmt::format("run.dir=\"{}\"", kRunDirectory)})
    container["command"].push_back(a);  // the volume, and not a directory that goes with the pod
  container["env"] = ordered_json::array(
      {variable("STOKER_COORDINATOR",
                run.name + "-coordinator." + run.name_space + ".svc:" + std::to_string(kPort)),
       variable("STOKER_WORKERS", std::to_string(run.workers)), variable("STOKER_RUN_DIR", kRunDirectory),
       token(run), field("STOKER_NODE", "spec.nodeName"), field("STOKER_ADDRESS", "status.podIP")});
  ordered_json requests{{"cpu", run.cpu}, {"memory", run.memory}}, limits{{"memory", run.memory}};
  if (run.gpus_per_worker > 0) limits["nvidia.com/gpu"] = std::to_string(run.gpus_per_worker);
  container["resources"] = {{"requests", requests}, {"limits", limits}};
  // 64, 65, 70 and 76 will fail again wherever they run; a disruption is nobody's fault.
  const ordered_json policy{
      {"rules",
       {{{"action", "Ignore"}, {"onPodConditions", {{{"type", "DisruptionTarget"}, {"status", "True"}}}}},
        {{"action", "FailJob"},
         {"onExitCodes", {{"containerName", "worker"}, {"operator", "In"}, {"values", {64, 65, 70, 76}}}}}}}};
  return {{"apiVersion", "batch/v1"},
          {"kind", "Job"},
          {"metadata", metadata(run, run.name, "worker")},
          {"spec",
           {{"completionMode", "Indexed"},
            {"completions", run.workers},
            {"parallelism", run.workers},
            {"backoffLimit", run.max_replacements},
            {"podFailurePolicy", policy},
            {"template",
             {{"metadata", {{"labels", labels(run, "worker")}}}, {"spec", pod(run, container, "Never")}}}}}};
}

}  // namespace

std::string render_kubernetes(const KubernetesRun& run) {
  check(run);
  const ordered_json secret{{"apiVersion", "v1"},
                            {"kind", "Secret"},
                            {"metadata", metadata(run, run.name, "token")},
                            {"type", "Opaque"},
                            {"stringData", {{"token", run.token}}}};
  const ordered_json service{
      {"apiVersion", "v1"},
      {"kind", "Service"},
      {"metadata", metadata(run, run.name + "-coordinator", "coordinator")},
      {"spec",
       {{"selector", labels(run, "coordinator")},
        {"ports", {{{"name", "grpc"}, {"port", kPort}, {"targetPort", kPort}, {"protocol", "TCP"}}}}}}};
  return ordered_json{{"apiVersion", "v1"},
                      {"kind", "List"},
                      {"items", ordered_json::array({secret, service, coordinator(run), job(run)})}}
             .dump(2) +
         "\n";
}

}  // namespace stoker::cluster
