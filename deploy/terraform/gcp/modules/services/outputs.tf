output "address" {
  description = "Public address of the load balancer."
  value       = google_compute_global_address.this.address
}

output "backend_service_account" {
  description = "Identity of the backend."
  value       = google_service_account.tier["backend"].email
}

output "backend_service_account_name" {
  description = "Its full name, as IAM wants it."
  value       = google_service_account.tier["backend"].name
}
