from pytest_fluxperf.errors import FluxPerfError as FluxPerfError
from pytest_fluxperf.errors import Unavailable as Unavailable
from pytest_fluxperf.pipelines.models import Defaults as Defaults
from pytest_fluxperf.pipelines.optimizations.base import Applied as Applied
from pytest_fluxperf.pipelines.optimizations.base import Host as Host
from pytest_fluxperf.pipelines.optimizations.base import Optimization as Optimization
from pytest_fluxperf.pipelines.optimizations.base import Stage as Stage
from pytest_fluxperf.pipelines.optimizations.base import needs_cuda as needs_cuda
from pytest_fluxperf.pipelines.optimizations.base import needs_package as needs_package
from pytest_fluxperf.pipelines.optimizations.base import register as register
from pytest_fluxperf.pipelines.optimizations.stepcache import StepCache as StepCache
from pytest_fluxperf.quality.custom_metrics import PictureMetric as PictureMetric
from pytest_fluxperf.recipe import Field as Field
from pytest_fluxperf.recipe import Recipe as Recipe
from pytest_fluxperf.recipe import Token as Token
from pytest_fluxperf.recipe import TokenSpec as TokenSpec
from pytest_fluxperf.recipe import choice as choice
from pytest_fluxperf.recipe import integer as integer
from pytest_fluxperf.recipe import nonempty as nonempty
from pytest_fluxperf.recipe import number as number
from pytest_fluxperf.results import Result as Result

__version__: str
