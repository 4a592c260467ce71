"""An exporter: what a plan is for an engine of one's own."""

from planner.export import EngineDeployment, Export, ExportFile, NotCarried, Values


class ExampleExporter:
    """Writes one line for each pool: how many instances of how many devices."""

    engine = "example 1.0"

    def applies(self, deployment: EngineDeployment) -> str | None:
        """Every plan can be said."""
        return None

    def export(self, deployment: EngineDeployment, values: Values, command: str) -> Export:
        """The file, and what it does not say."""
        lines = [f"# {command}"]
        lines += [f"{pool.phase} = {pool.replicas} x {pool.devices}" for pool in deployment.pools]
        lost = NotCarried("where every item lies", "this engine has one memory", "everything lies in device memory")
        return Export("example", (ExportFile("example.conf", "\n".join(lines).encode() + b"\n"),), not_carried=(lost,))


EXPORTER = ExampleExporter()
