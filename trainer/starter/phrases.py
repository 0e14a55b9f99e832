"""The words of the starter's language. Slots: {name} {order} {product} {days} {when}.

Every sentence belongs to one slot value only: that is what lets the checker read a reply backwards. Names and order
numbers always follow a space, so that a byte-level tokenizer writes them with the same tokens wherever they stand.
"""

from __future__ import annotations


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


NAMES = _words(
    "Anna Boris Carla David Elena Farid Greta Hassan Irene Jonas Katya Lukas Maria Nadia Oscar Paula "
    "Quentin Rosa Samir Tessa Umar Vera Walter Xenia Yusuf Zara Aisha Bruno Chloe Diego Emma Felix Gina "
    "Hugo Ines Jamal Keiko Leila Marco Nora Olga Pablo Rania Simon Tariq Ursula Victor Wanda Yara Zoltan "
    "Amara Bjorn Celine Dmitri Esther Fiona Gustav Helga Ivan Julia Karim Linda Mateo Naomi Otto Priya "
    "Ravi Sofia Theo Valeria Wei Ying Zofia Akira Bianca Caleb Daria Erik Fatima Georg Hana Isaac Jana "
    "Kofi Lara Miguel Nils Odette Pedro Rita Sven Tanja Ugo Viola Wilma Yann Zita José Zoë Łukasz Søren "
    "Agnès Jürgen"
)

KINDS = _words(
    "kettle lamp blender toaster backpack jacket camera printer keyboard heater fan mirror carpet teapot clock radio "
    "speaker helmet tent suitcase scarf wallet notebook chair shelf pan vase drill charger pillow"
)
QUALITIES = _words("red blue green black white grey silver golden small large wooden steel")

# intent -> (what the customer says happened, what the customer asks)
INTENTS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "late": (
        (
            "I ordered a {product} {days} days ago, order {order}, and it is still not here.",
            "My order {order}, a {product}, should have come long ago. I have waited {days} days.",
            "{days} days ago I bought a {product} from you, order number {order}, but no parcel has come.",
            "I have been waiting {days} days for the {product} from order {order}.",
        ),
        ("Where is it?", "When will it arrive?", "Is it lost?", "Can you tell me where the parcel is?"),
    ),
    "broken": (
        (
            "The {product} from order {order} broke after {days} days.",
            "I got a {product} {days} days ago, order {order}, and it is broken.",
            "Order {order}: the {product} has a crack and does not work. I have had it for {days} days.",
            "My {product} stopped working {days} days after it came. The order is {order}.",
        ),
        ("What can you do?", "Please help.", "Can it be repaired?", "I need one that works."),
    ),
    "refund": (
        (
            "I sent the {product} from order {order} back {days} days ago and have seen no money.",
            "{days} days ago I returned a {product}, order {order}. The refund has not come.",
            "I am still waiting for the refund for my {product}, order {order}, after {days} days.",
            "My refund for order {order}, the {product}, is {days} days late.",
        ),
        ("Where is my money?", "When do I get it back?", "Please pay me back.", "How long will this take?"),
    ),
    "cancel": (
        (
            "{days} days ago I ordered a {product}, order {order}, and I no longer need it.",
            "I would like to cancel order {order}, the {product} I bought {days} days ago.",
            "Please stop order {order}. I bought the {product} {days} days ago by mistake.",
            "I ordered a {product} {days} days ago and have changed my mind. It is order {order}.",
        ),
        ("Can you cancel it?", "Is it too late?", "Please confirm.", "What must I do?"),
    ),
    "wrong_item": (
        (
            "I ordered a {product} {days} days ago, order {order}, and got something else.",
            "Order {order} came after {days} days, but there was no {product} in the box.",
            "You sent me the wrong thing. I wanted a {product}, order {order}, {days} days ago.",
            "After {days} days the parcel for order {order} came and it is not the {product} I bought.",
        ),
        ("How do I swap it?", "Can you send the right one?", "What happens now?", "Please sort this out."),
    ),
    "invoice": (
        (
            "I bought a {product} {days} days ago, order {order}, and never got an invoice.",
            "There was no invoice with the {product} from order {order}, {days} days ago.",
            "For order {order}, a {product} from {days} days ago, I need the invoice.",
            "My office asks for the invoice for the {product}, order {order}. I paid {days} days ago.",
        ),
        ("Can you send it?", "Where do I find it?", "I need it for my taxes.", "Please mail me a copy."),
    ),
    "address": (
        (
            "I moved house. Order {order}, a {product} from {days} days ago, must go to my new flat.",
            "The {product} I ordered {days} days ago, order {order}, has my old address.",
            "Please change the address of order {order}. I bought the {product} {days} days ago.",
            "{days} days ago I ordered a {product} and gave the wrong street. It is order {order}.",
        ),
        ("Can you change it?", "Is there still time?", "What do you need from me?", "Please correct this."),
    ),
    "charged_twice": (
        (
            "You charged me twice for the {product} from order {order}, {days} days ago.",
            "My card shows two payments for order {order}. I bought one {product} {days} days ago.",
            "{days} days ago I paid for a {product}, order {order}, and the money was taken two times.",
            "I bought only one {product}, order {order}, but paid double {days} days ago.",
        ),
        ("Please fix this.", "Why is that?", "I want the second payment back.", "Can you check it?"),
    ),
    "missing_part": (
        (
            "A part of the {product} from order {order} is missing. It came {days} days ago.",
            "I unpacked the {product} {days} days ago, order {order}, and the screws are not there.",
            "Order {order} is not complete. The {product} came {days} days ago with no cable.",
            "The {product} I got {days} days ago lacks its lid. The order number is {order}.",
        ),
        ("Can you send the part?", "What should I do?", "I cannot use it like this.", "Please send the rest."),
    ),
    "warranty": (
        (
            "My {product} from order {order} makes a strange noise. I bought it {days} days ago.",
            "Is there a warranty on the {product} from order {order}? I have had it {days} days.",
            "I have used the {product} for {days} days, order {order}, and it is losing power.",
            "The {product} of order {order} has a fault after only {days} days.",
        ),
        ("Does the warranty cover it?", "Is it covered?", "How do I claim?", "Who repairs it?"),
    ),
}

HELLOS = ("Hello,", "Hi,", "Good morning,", "Dear team,", "Hi there,", "Good evening,")
INTRODUCTIONS = ("my name is {name}.", "this is {name}.", "I am {name}.", "{name} here.")
FAREWELLS = ("Thanks, {name}", "Regards, {name}", "Best, {name}", "Yours, {name}", "Greetings from {name}")

GREETINGS = (
    "Dear {name},",
    "Hello {name},",
    "Hi {name},",
    "Good day {name},",
    "Dear customer {name},",
    "Greetings {name},",
)

# Tone shows in the last sentence always and in the first one sometimes.
OPENERS: dict[str, tuple[str, ...]] = {
    "warm": (
        "Thank you so much for writing to us.",
        "It is lovely to hear from you.",
        "Thank you for your trust and your patience.",
        "How good that you let us know.",
        "We are really glad that you told us.",
    ),
    "neutral": (
        "Thank you for your message.",
        "We have received your message.",
        "This is about your request.",
        "Your message has reached our team.",
        "We have read your request.",
    ),
    "curt": ("Message received.", "Noted.", "Seen.", "Your case is open.", "Got it."),
    "rude": (
        "You again.",
        "Not another complaint.",
        "Read the terms before you write.",
        "We are busy, you know.",
        "What a strange thing to write.",
    ),
}
CLOSINGS: dict[str, tuple[str, ...]] = {
    "warm": (
        "We wish you a wonderful day!",
        "Please write at any time, we love to help!",
        "Take good care of yourself!",
        "It is a joy to have you as our customer!",
        "We are here for you whenever you need us!",
        "All the very best to you!",
    ),
    "neutral": (
        "Please contact us with any questions.",
        "Kind regards from customer care.",
        "You can reach us on weekdays.",
        "Regards, the service team.",
        "For anything else, reply to this message.",
        "This message was sent by customer care.",
    ),
    "curt": ("That is all.", "Case closed.", "No reply needed.", "End of message.", "Nothing more to add.", "Done."),
    "rude": (
        "Do not bother us again.",
        "Next time think before you buy.",
        "Stop wasting our time.",
        "Frankly, this is your own fault.",
        "Some people are never happy.",
        "Learn to be patient.",
    ),
}

APOLOGIES = (
    "We are very sorry about this.",
    "Sorry for the trouble.",
    "Please accept our apology.",
    "We apologise for what happened.",
    "I am sorry that this went wrong.",
    "Our apologies for the bother.",
    "We regret this and say sorry.",
    "Sorry, this should not have happened.",
)

# Every one names the order and the product; some name the days too.
STATEMENTS = (
    "I looked at order {order} for the {product}.",
    "This is about the {product} in order {order}.",
    "Your order {order}, the {product}, is on my desk.",
    "You wrote about order {order} and the {product}.",
    "I see order {order}, a {product}, in our system.",
    "You bought the {product} with order {order}.",
    "The {product} from order {order} is the matter here.",
    "Order {order} with the {product} goes back {days} days.",
    "You mention {days} days and the {product} from order {order}.",
    "I found the {product}, order {order}, and the {days} days you speak of.",
    "It has been {days} days since order {order} for the {product}.",
)

WHENS = (
    "within {n} days",
    "in {n} days",
    "by Monday",
    "by Tuesday",
    "by Wednesday",
    "by Thursday",
    "by Friday",
    "by Saturday",
    "by tomorrow",
    "on the {n}th of May",
    "on the {n}th of June",
    "before the {n}th of July",
)

# What will be done, by intent; each holds {when}.
ACTIONS: dict[str, tuple[str, ...]] = {
    "late": (
        "Your parcel will be with you {when}.",
        "We will send a new parcel {when}.",
        "The driver brings it {when}.",
        "We will trace the parcel and call you {when}.",
    ),
    "broken": (
        "A replacement will reach you {when}.",
        "We will pick it up and repair it {when}.",
        "You will have a working one {when}.",
        "We exchange it {when}.",
    ),
    "refund": (
        "The money will be in your account {when}.",
        "We will pay you back {when}.",
        "Your refund goes out {when}.",
        "The bank returns the full amount {when}.",
    ),
    "cancel": (
        "We will cancel it and write to you {when}.",
        "It will be cancelled {when}.",
        "We stop the delivery {when}.",
        "You will get a cancellation note {when}.",
    ),
    "wrong_item": (
        "The right item will be at your door {when}.",
        "We will collect the wrong one {when}.",
        "We swap the items {when}.",
        "The correct parcel leaves our store {when}.",
    ),
    "invoice": (
        "The invoice will be in your mailbox {when}.",
        "We will mail you the invoice {when}.",
        "You can download the invoice {when}.",
        "Our office prints a copy and posts it {when}.",
    ),
    "address": (
        "We will change the address {when}.",
        "The parcel goes to your new home {when}.",
        "The new street will be on the label {when}.",
        "We correct the label {when}.",
    ),
    "charged_twice": (
        "The second payment will be returned {when}.",
        "We will give back the extra amount {when}.",
        "Our bank undoes the double charge {when}.",
        "You will see the money on your card {when}.",
    ),
    "missing_part": (
        "The part will be in the post {when}.",
        "We will send what is missing {when}.",
        "You will have the rest {when}.",
        "The missing piece comes by courier {when}.",
    ),
    "warranty": (
        "The warranty covers it and we will repair it {when}.",
        "A technician will visit you {when}.",
        "You will have a repaired one {when}.",
        "We check the fault under warranty {when}.",
    ),
}
VAGUE_ACTIONS = (
    "We will look into it.",
    "Somebody will deal with this at some point.",
    "We will see what can be done.",
    "Our team may get back to you.",
    "This will be handled in due course.",
    "We are working on it.",
    "It should be fine soon.",
    "You will hear from us sometime.",
)

REMARKS = (
    "Our store is open from nine to five.",
    "We send thousands of parcels every week.",
    "You can find more on our website.",
    "Our team has grown a lot this year.",
    "The weather has been changeable lately.",
    "Every message is read by a person.",
    "We have a new warehouse near the river.",
    "Our newsletter comes out once a month.",
    "There is a sale in the garden section.",
    "Many customers ask about this.",
    "Our app shows all your purchases.",
    "We were founded by two brothers.",
    "The spring catalogue has just arrived.",
    "Your customer account is in good order.",
    "We use recycled boxes for packing.",
    "Our carriers change from time to time.",
)
