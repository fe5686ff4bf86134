output "bucket" {
  description = "Bucket of uploads and results."
  value       = aws_s3_bucket.scans.id
}

output "bucket_arn" {
  description = "Its ARN."
  value       = aws_s3_bucket.scans.arn
}

output "key_arn" {
  description = "The key that encrypts it."
  value       = aws_kms_key.this.arn
}

output "log_bucket" {
  description = "Bucket of the load balancer's access logs, once it may be written to."
  value       = aws_s3_bucket_policy.this["logs"].bucket
}
