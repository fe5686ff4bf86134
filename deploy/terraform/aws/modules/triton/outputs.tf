output "cluster_name" {
  description = "Name of the cluster."
  value       = aws_eks_cluster.this.name
}

output "grpc_address" {
  description = "host:port of Triton's gRPC, inside the VPC only."
  value       = "${aws_lb.this.dns_name}:8001"
}
