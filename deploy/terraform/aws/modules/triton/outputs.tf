output "cluster_name" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.this.name
}

output "grpc_address" {
  description = "host:port of Triton's gRPC, inside the VPC only."
  value       = "${aws_lb.this.dns_name}:8001"
}

output "log_group" {
  description = "Log group of the cluster's pods."
  value       = aws_cloudwatch_log_group.pods.name
}
