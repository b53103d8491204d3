"""Tensors -> tensors: plain ``nn.Module`` networks that know only torch."""
