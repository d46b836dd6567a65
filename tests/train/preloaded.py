"""Do once in a fork server what each training does when it begins: late imports, and one count."""

import sklearn.datasets  # noqa: F401
import torch._dynamo  # noqa: F401

from reslearn.models import build, complexity

complexity(build("resnet8", num_classes=10))
