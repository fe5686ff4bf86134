variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "load_balancer_arn" {
  description = "What it stands in front of."
  type        = string
}

variable "requests_per_5_minutes" {
  description = "Requests that one address may make in five minutes; a hospital behind one address is one."
  type        = number
}
