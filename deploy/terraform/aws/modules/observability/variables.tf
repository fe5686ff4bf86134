variable "name" {
  description = "Prefix of all names."
  type        = string
}

variable "alarm_email" {
  description = "Who is told."
  type        = string
}

variable "monthly_budget_usd" {
  description = "Limit of the month's cost."
  type        = number
}

variable "load_balancer" {
  description = "CloudWatch's name of the load balancer."
  type        = string
}

variable "backend_group" {
  description = "CloudWatch's name of the backend's target group."
  type        = string
}

variable "database_id" {
  description = "Identifier of the database."
  type        = string
}
