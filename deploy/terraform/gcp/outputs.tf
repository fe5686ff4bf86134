output "address" {
  description = "Point the host name's A record here."
  value       = module.services.address
}

output "cluster_name" {
  description = "For `gcloud container clusters get-credentials`, before deploy/kubernetes/overlays/gke-triton is applied."
  value       = module.triton.cluster_name
}

output "triton_ip" {
  description = "Internal address that the overlay gke-triton gives to Triton."
  value       = module.triton.address
}

output "backend_service_account" {
  description = "Identity of the backend, for the annotations in deploy/kubernetes/overlays/gke."
  value       = module.services.backend_service_account
}

output "bucket" {
  description = "Bucket of uploads and results."
  value       = module.storage.bucket
}
