"""The fictional company behind the sample accounts: its projects and their descriptions."""

from dataclasses import dataclass

DOMAIN = "meridian.example"  # reserved by RFC 2606, so it never resolves


@dataclass(frozen=True)
class Project:
    """A model under development: its number of versions, and the service that serves it, if any."""

    name: str
    versions: int
    description: str
    tags: tuple[str, ...]
    service: str = ""
    production: bool = False
    file: str = "model.pkl"
    runtime: str = "ScikitPython"
    requirements: tuple[str, ...] = ("scikit-learn==1.9.1", "pandas==2.3.3")


BOOSTED = ("lightgbm==4.6.0", "pandas==2.3.3", "numpy==2.3.5")
TORCH = ("torch==2.9.1", "transformers==4.57.1", "pillow==12.0.0")


@dataclass(frozen=True)
class Portfolio:
    """The projects of one account. `drafts`: name and description of models whose first registration is in progress."""

    projects: tuple[Project, ...]
    drafts: tuple[tuple[str, str], ...]


COMMERCE = Portfolio(
    (
        Project(
            "demand-forecast-daily",
            12,
            "Units per item and store for the next 28 days, retrained every three days on "
            "sales, promotions and weather.",
            ("demand", "nightly"),
            "demand-daily",
            True,
            requirements=BOOSTED,
        ),
        Project(
            "demand-forecast-weekly",
            9,
            "Units per category and region for 26 weeks; feeds the purchasing plan.",
            ("demand", "weekly"),
            "demand-weekly",
            True,
            requirements=BOOSTED,
        ),
        Project(
            "promo-uplift",
            8,
            "Extra units sold during a promotion, by mechanic and depth of discount.",
            ("pricing", "promotions"),
            "promo-uplift",
            requirements=BOOSTED,
        ),
        Project(
            "price-elasticity",
            7,
            "Log-log regression per category with hierarchical shrinkage.",
            ("pricing",),
            "price-elasticity",
        ),
        Project(
            "basket-recommender",
            9,
            "Items often bought together; implicit feedback from the last 90 days.",
            ("recommendation", "web"),
            "basket-recommender",
            True,
        ),
        Project(
            "churn-propensity",
            8,
            "Probability that a loyalty member buys nothing in the next 60 days.",
            ("crm", "loyalty"),
            "churn-propensity",
        ),
        Project(
            "stock-out-risk",
            7,
            "Chance that an item is sold out before the next delivery.",
            ("supply", "nightly"),
            "stock-out-risk",
            True,
            requirements=BOOSTED,
        ),
        Project(
            "returns-predictor",
            6,
            "Return probability per order line, from size, brand and earlier returns.",
            ("web", "orders"),
            "returns",
        ),
        Project(
            "store-clustering", 4, "Groups of stores with a similar assortment and similar customers.", ("planning",)
        ),
        Project(
            "lead-time-estimator",
            6,
            "Days between order and delivery per supplier and lane, with quantiles.",
            ("supply",),
            "lead-time",
            requirements=BOOSTED,
        ),
        Project(
            "markdown-optimizer",
            6,
            "Price path for end-of-season items that clears the stock by the target date.",
            ("pricing", "fashion"),
            "markdown",
        ),
        Project(
            "search-ranking",
            8,
            "Learning to rank for the web shop's search; trained on clicks and add-to-cart events.",
            ("web", "search"),
            "search-ranking",
            True,
            requirements=BOOSTED,
        ),
        Project(
            "image-tagger",
            5,
            "Colour, pattern and category of a product photo.",
            ("catalog", "vision"),
            "image-tagger",
            file="weights.zip",
            runtime="Python",
            requirements=TORCH,
        ),
        Project(
            "review-sentiment",
            6,
            "Sentiment and topics of product reviews in English, Dutch and German.",
            ("text", "web"),
            "review-sentiment",
            file="weights.zip",
            runtime="Python",
            requirements=TORCH,
        ),
        Project(
            "address-matcher",
            4,
            "Matches delivery addresses written by hand to the address register.",
            ("orders", "text"),
            "address-matcher",
        ),
        Project(
            "fraud-orders",
            7,
            "Risk score of web orders before they are shipped. Threshold 0.82 since the June review.",
            ("orders", "risk"),
            "fraud-orders",
            True,
            requirements=BOOSTED,
        ),
        Project("call-volume", 5, "Calls per half-hour at the service desk, for planning shifts.", ("service",)),
        Project(
            "footfall-hourly",
            4,
            "Visitors per store and hour, from door counters and the weather forecast.",
            ("stores",),
        ),
        Project("assortment-gaps", 2, "Items missing in a store that comparable stores sell well.", ("planning",)),
        Project("substitution-pairs", 2, "What customers accept when an item is sold out.", ("supply", "web")),
    ),
    (
        ("demand-forecast-hourly", "Units per item, store and hour for fresh food."),
        ("shelf-photo-audit", "Empty facings in photos of shelves."),
    ),
)

CREDIT = Portfolio(
    (
        Project(
            "application-scorecard",
            9,
            "Twelve-month default probability at application. Validated every quarter.",
            ("scorecard", "regulated"),
            "application-score",
            True,
        ),
        Project(
            "behaviour-score",
            8,
            "Monthly default probability of existing customers from account behaviour.",
            ("scorecard", "regulated"),
            "behaviour-score",
            True,
        ),
        Project(
            "early-default",
            6,
            "Default within the first three instalments.",
            ("risk",),
            "early-default",
            requirements=BOOSTED,
        ),
        Project("limit-increase", 5, "Which customers may be offered a higher limit.", ("offers",), "limit-increase"),
        Project(
            "affordability",
            5,
            "Disposable income after fixed costs, with a lower bound.",
            ("income",),
            "affordability",
            True,
        ),
        Project(
            "collections-priority",
            4,
            "Order in which overdue accounts are called.",
            ("collections",),
            "collections",
            requirements=BOOSTED,
        ),
        Project(
            "identity-match",
            4,
            "Similarity of a selfie and the photo of an identity document.",
            ("kyc", "vision"),
            "identity-match",
            file="weights.zip",
            runtime="Python",
            requirements=TORCH,
        ),
        Project("income-estimator", 4, "Monthly income from bank transactions.", ("income",), "income-estimator"),
        Project("sme-rating", 3, "Rating of small companies from annual accounts.", ("sme", "regulated"), "sme-rating"),
        Project(
            "transaction-categories",
            2,
            "Category of a card transaction.",
            ("text",),
            runtime="Python",
            file="weights.zip",
            requirements=TORCH,
        ),
    ),
    (
        ("mortgage-prepayment", "Chance of early repayment within a year."),
        ("synthetic-identity", "Applications from people who do not exist."),
        ("rent-as-income", "Rental income in bank transactions."),
        ("overdraft-risk", "Days until an account is overdrawn."),
    ),
)

PLANT = Portfolio(
    (
        Project(
            "bearing-vibration",
            6,
            "Remaining hours of a bearing from vibration spectra (ISO 10816 zones).",
            ("line2", "vibration"),
            "bearing-vibration",
            True,
        ),
        Project(
            "pump-anomaly",
            5,
            "Anomaly score of the coolant pumps; isolation forest on 14 sensors.",
            ("coolant",),
            "pump-anomaly",
        ),
        Project(
            "weld-defects",
            4,
            "Porosity and cracks in photos of weld seams.",
            ("vision", "quality"),
            "weld-defects",
            file="weights.zip",
            runtime="Python",
            requirements=TORCH,
        ),
        Project("energy-baseline", 4, "Expected consumption per shift without the new compressors.", ("energy",)),
        Project(
            "paint-thickness",
            3,
            "Dry film thickness from booth humidity, flow and distance.",
            ("paint", "quality"),
            "paint-thickness",
        ),
        Project("compressor-remaining-life", 3, "Weeks until a compressor stage needs an overhaul.", ("air",)),
    ),
    (
        ("gearbox-noise", "Tooth damage from the sound of a gearbox."),
        ("furnace-drift", "Slow drift of the furnace's zone temperatures."),
        ("press-cycle-time", "Seconds per stroke, from tool and material."),
        ("mould-wear", "Shots left until a mould is reground."),
    ),
)
