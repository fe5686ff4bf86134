output "bucket" {
  description = "Bucket of uploads and results."
  value       = google_storage_bucket.scans.name
}
