"""How the method is cited."""

METHOD_BIBTEX = """\
@article{chen2024exploring,
  title   = {Exploring feature sparsity for out-of-distribution detection},
  author  = {Chen, Qichao and others},
  journal = {Scientific Reports},
  volume  = {14},
  pages   = {28444},
  year    = {2024},
  doi     = {10.1038/s41598-024-79934-7}
}"""
