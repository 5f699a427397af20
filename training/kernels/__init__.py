"""Convolutions whose gradients are right on the machine at hand, decided by measuring them there.

oneDNN's bfloat16 kernels are wrong for some shapes on some processors: with AMX, outputs that are one voxel deep
after a stride along z (pytorch issue 169688), and with them all gradients; without it too, weight gradients of
features that are two voxels wide, for which memory is read that was never written. Which shapes those are changes
with processor, thread count and version, and no list of them would last. So each distinct convolution of a run is
tried before the first step, on input whose right answer is known in closed form. Where oneDNN's bfloat16 is wrong,
that part of that convolution (its output, its input's gradient or its weight's) is computed in float32; all others
keep the fast kernel.

oneDNN's own switch, ``ONEDNN_MAX_CPU_ISA``, is not touched: it holds for a whole process and has to be set before
torch is imported, so it would take the fast kernels from all convolutions, and from the validation as well.
"""

from training.kernels.convolution import KernelError
from training.kernels.proof import proven_kernels
from training.kernels.routing import Kernels

__all__ = ["KernelError", "Kernels", "proven_kernels"]
