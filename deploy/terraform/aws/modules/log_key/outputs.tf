output "arn" {
  description = "The key that encrypts log groups."
  value       = aws_kms_key.this.arn
}
