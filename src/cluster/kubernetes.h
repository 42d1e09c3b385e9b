// cluster/kubernetes.h
// A run as Kubernetes objects: a Secret with the join token, a headless Service that gives the coordinator a name, a
// Deployment of one coordinator (Recreate: never two), and an Indexed Job of workers with a failure policy that follows
// Stoker's exit codes. Pods that are evicted or whose node dies are replaced without costing a retry.
// Written as JSON, which every YAML reader and kubectl accept. Nothing is sent to a cluster.
// Errors       Usage: names that Kubernetes would refuse, counts below 1
#pragma once
#include <map>
#include <string>
#include <vector>

namespace stoker::cluster {

struct KubernetesRun {
  std::string name;  // RFC 1123 label, at most 40 characters
  std::string name_space = "default";
  std::string image;
  int workers = 1;
  int minimum = 1;
  std::vector<std::string> train_arguments;  // after `stoker train`
  std::string token;
  std::string volume_claim;  // holds /run/stoker/run (checkpoints, logs); empty: emptyDir per pod
  int gpus_per_worker = 0;
  std::string cpu = "4", memory = "16Gi";
  std::map<std::string, std::string> node_selector;
  int max_replacements = 1000;
};

std::string render_kubernetes(const KubernetesRun& run);  // a List object

}  // namespace stoker::cluster
