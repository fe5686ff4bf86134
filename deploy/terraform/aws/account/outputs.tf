output "state_config" {
  description = "The file state.config for `terraform init -backend-config=state.config` in the folder above."
  value       = <<-EOT
    bucket = "${aws_s3_bucket.state.id}"
    key    = "production.tfstate"
    region = "${data.aws_region.here.name}"
  EOT
}

output "state_bucket" {
  description = "Bucket of the state."
  value       = aws_s3_bucket.state.id
}

output "registry" {
  description = "Where images are pushed to: REGISTRY/fastapi-be:VERSION and so on."
  value       = trimsuffix(aws_ecr_repository.tier["fastapi-be"].repository_url, "/fastapi-be")
}

output "log_user_key_secret_arn" {
  description = "For the variable of the same name in the folder above."
  value       = aws_secretsmanager_secret.log_user_key.arn
}
