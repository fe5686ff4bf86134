output "cluster_name" {
  description = "Name of the cluster."
  value       = google_container_cluster.this.name
}

output "address" {
  description = "Internal address of Triton."
  value       = google_compute_address.triton.address
}

output "grpc_address" {
  description = "host:port of Triton's gRPC, inside the network only."
  value       = "${google_compute_address.triton.address}:8001"
}
