variable "region" {
  description = "AWS region."
  type        = string
  default     = "eu-central-1"
}

variable "prefix" {
  description = "First part of the names of bucket and repositories."
  type        = string
  default     = "qsm-ai"
}

variable "force_destroy" {
  description = "Let `terraform destroy` delete state and images with what holds them; for trials only."
  type        = bool
  default     = false
}
