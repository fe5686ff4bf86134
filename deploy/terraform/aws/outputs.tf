output "address" {
  description = "Point the host name's DNS record (alias or CNAME) here."
  value       = module.services.load_balancer_dns_name
}

output "cluster_name" {
  description = "For `aws eks update-kubeconfig --name`, before deploy/kubernetes/overlays/eks-triton is applied."
  value       = module.triton.cluster_name
}

output "triton_grpc_address" {
  description = "Where the backend reaches Triton, inside the VPC only."
  value       = module.triton.grpc_address
}

output "bucket" {
  description = "Bucket of uploads and results."
  value       = module.storage.bucket
}

output "log_groups" {
  description = "CloudWatch log groups of the tiers, and of the cluster's pods."
  value       = merge(module.services.log_groups, { pods = module.triton.log_group })
}
