output "network_id" {
  description = "The network."
  value       = google_compute_network.this.id
}

output "subnet_id" {
  description = "The subnetwork."
  value       = google_compute_subnetwork.this.id
}

output "peering" {
  description = "The peering that Cloud SQL needs first."
  value       = google_service_networking_connection.this.id
}
