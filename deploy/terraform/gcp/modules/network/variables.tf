variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "region" {
  description = "Region."
  type        = string
}
