variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "vpc_id" {
  description = "The VPC."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets in two zones."
  type        = list(string)
}

variable "client_group_ids" {
  description = "Security groups of who may connect, by tier."
  type        = map(string)
}

variable "instance_class" {
  description = "RDS instance class."
  type        = string
}

variable "storage_gb" {
  description = "Storage, GiB; it grows by itself up to four times as much."
  type        = number
}

variable "multi_az" {
  description = "A standby in another zone."
  type        = bool
}

variable "deletion_protection" {
  description = "Refuse to be deleted."
  type        = bool
}
