# What a user of ECS declares before there are services: everything here is kept, read back and changed in place.
terraform {
  required_providers {
    aws = { source = "hashicorp/aws" }
  }
}
provider "aws" {
  region = "us-east-1"
  skip_metadata_api_check = true
  default_tags { tags = { made_by = "terraform" } }
}
variable "memory" {
  type = number
  default = 64
}
variable "retention" {
  type = number
  default = 7
}
variable "expire_days" {
  type = number
  default = 14
}
data "aws_caller_identity" "me" {}
data "aws_region" "here" {}
resource "aws_ecs_cluster" "c" {
  name = "tf"
  setting {
    name = "containerInsights"
    value = var.memory > 64 ? "enabled" : "disabled"
  }
}
resource "aws_cloudwatch_log_group" "g" {
  name = "/tf/hello"
  retention_in_days = var.retention
}
resource "aws_ecr_repository" "r" {
  name = "tf/hello"
  image_tag_mutability = var.memory > 64 ? "MUTABLE" : "IMMUTABLE"
  force_delete = true
  image_scanning_configuration { scan_on_push = false }
}
resource "aws_ecr_lifecycle_policy" "p" {
  repository = aws_ecr_repository.r.name
  policy = jsonencode({ rules = [{ rulePriority = 1, description = "old", selection = { tagStatus = "untagged", countType = "sinceImagePushed", countUnit = "days", countNumber = var.expire_days }, action = { type = "expire" } }] })
}
resource "aws_ecr_repository_policy" "rp" {
  repository = aws_ecr_repository.r.name
  policy = jsonencode({ Version = "2012-10-17", Statement = [{ Sid = "pull", Effect = "Allow", Principal = "*", Action = ["ecr:BatchGetImage"] }] })
}
data "aws_iam_policy_document" "trust" {
  statement {
    actions = ["sts:AssumeRole"]
    principals {
      type = "Service"
      identifiers = ["ecs-tasks.amazonaws.com"]
    }
  }
}
resource "aws_iam_role" "task" {
  name = "tf-task"
  assume_role_policy = data.aws_iam_policy_document.trust.json
  max_session_duration = var.memory > 64 ? 7200 : 3600
}
resource "aws_iam_role_policy" "inline" {
  role = aws_iam_role.task.id
  name = "inline"
  policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = ["logs:PutLogEvents"], Resource = "*" }] })
}
resource "aws_iam_policy" "own" {
  name = "tf-own"
  policy = jsonencode({ Version = "2012-10-17", Statement = [{ Effect = "Allow", Action = var.memory > 64 ? ["s3:GetObject", "s3:PutObject"] : ["s3:GetObject"], Resource = "*" }] })
}
resource "aws_iam_role_policy_attachment" "own" {
  role = aws_iam_role.task.name
  policy_arn = aws_iam_policy.own.arn
}
resource "aws_iam_role_policy_attachment" "managed" {
  role = aws_iam_role.task.name
  policy_arn = "arn:aws:iam::aws:policy/service-role/AmazonECSTaskExecutionRolePolicy"
}
resource "aws_iam_instance_profile" "ip" {
  name = "tf-ip"
  role = aws_iam_role.task.name
}
resource "aws_ecs_task_definition" "t" {
  family = "tf-hello"
  network_mode = "host"
  requires_compatibilities = ["EC2"]
  execution_role_arn = aws_iam_role.task.arn
  task_role_arn = aws_iam_role.task.arn
  container_definitions = jsonencode([{
    name = "hello", image = "${aws_ecr_repository.r.repository_url}:1", memory = var.memory, cpu = 10, essential = true,
    environment = [{ name = "B", value = "2" }, { name = "A", value = "1" }],
    logConfiguration = { logDriver = "awslogs", options = { awslogs-group = aws_cloudwatch_log_group.g.name, awslogs-region = "us-east-1", awslogs-stream-prefix = "p" } }
  }])
}
output "repository" { value = aws_ecr_repository.r.repository_url }
