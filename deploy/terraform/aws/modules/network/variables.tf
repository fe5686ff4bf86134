variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "cidr" {
  description = "Address range of the VPC."
  type        = string
}

variable "zones" {
  description = "Availability zones, one public and one private subnet in each."
  type        = list(string)
}

variable "log_retention_days" {
  description = "How long flow logs are kept."
  type        = number
}

variable "log_key_arn" {
  description = "The key that encrypts log groups."
  type        = string
}
