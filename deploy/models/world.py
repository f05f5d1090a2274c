#!/usr/bin/env python3
"""The village of Woolhill: a story grammar that makes the text the default models learn from.

A story follows a small world: who lives where with which animal never changes, what is in a basket is counted, and
what happens has a cause and a consequence. So a model has something to learn beyond spelling. A small model, which
learns most from what is said: a count is worked out in words before it is used, always in the same form, and the two
children of a story are neighbours, a girl and a boy, so that "he" and "she" leave no doubt. The same seed gives
the same text; different seeds give different stories, which is how training and held-out text are kept apart.

    world.py --seed 1 --count 3            stories, a blank line between them
    world.py --seed 1 --count 3 --chat     conversations, one JSON array of messages per line
"""
import argparse
import json
import random
import re
from dataclasses import dataclass

NUMBERS = ("no one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen "
           "seventeen eighteen nineteen twenty").split()
PLAIN_NUMBERS = ["zero"] + NUMBERS[1:]
SOUNDS = {"dog": "woof", "cat": "meow", "goat": "baa", "duck": "quack", "pony": "neigh", "parrot": "hello",
          "hen": "cluck", "rabbit": "squeak"}


@dataclass(frozen=True)
class Person:
    """A child of the village; everything here is true in every story."""
    name: str
    is_girl: bool
    home: str
    colour: str
    animal: str
    pet: str
    food: str

    def words(self, prefix=""):
        he, him, his, kid = ("she", "her", "her", "girl") if self.is_girl else ("he", "him", "his", "boy")
        words = {"name": self.name, "he": he, "him": him, "his": his, "kid": kid, "He": he.capitalize(),
                 "His": his.capitalize(), "home": self.home, "colour": self.colour, "animal": self.animal,
                 "pet": self.pet, "food": self.food, "sound": SOUNDS[self.animal]}
        return {prefix + key: value for key, value in words.items()}


PEOPLE = [
    Person("Mia", True, "the old mill", "brown", "dog", "Biscuit", "plum cake"),
    Person("Tom", False, "the house by the river", "black", "cat", "Pepper", "fish soup"),
    Person("Nora", True, "the lighthouse", "green", "parrot", "Captain", "pancakes"),
    Person("Ben", False, "the farm", "white", "goat", "Daisy", "cheese"),
    Person("Lily", True, "the bakery", "grey", "cat", "Flour", "warm bread"),
    Person("Sam", False, "the school house", "white", "rabbit", "Button", "carrots"),
    Person("Rosa", True, "the garden house", "red", "hen", "Ruby", "bean soup"),
    Person("Max", False, "the blue boat", "yellow", "duck", "Puddle", "fried fish"),
    Person("Ella", True, "the stable", "brown", "pony", "Clover", "apple pie"),
    Person("Finn", False, "the hut in the forest", "grey", "dog", "Shadow", "mushroom stew"),
    Person("Anna", True, "the tower", "black", "rabbit", "Night", "honey bread"),
    Person("Jack", False, "the shop", "brown", "hen", "Penny", "jam buns"),
]



def friends(person):
    """The neighbours in the list, which goes round and in which girls and boys take turns."""
    at = PEOPLE.index(person)
    return [PEOPLE[at - 1], PEOPLE[(at + 1) % len(PEOPLE)]]


# Place: how one gets there is always "to the ..."; things that can be gathered there, and where exactly they lie.
PLACES = {
    "forest": [("acorn", "acorns", "under an oak"), ("mushroom", "mushrooms", "in the moss"),
               ("pine cone", "pine cones", "on the path")],
    "beach": [("shell", "shells", "in the sand"), ("smooth stone", "smooth stones", "near the water")],
    "orchard": [("apple", "apples", "under a tree"), ("pear", "pears", "in the grass"),
                ("plum", "plums", "on a low branch")],
    "garden": [("carrot", "carrots", "in the earth"), ("bean", "beans", "behind the fence"),
               ("strawberry", "strawberries", "between the leaves")],
    "meadow": [("flower", "flowers", "in the tall grass"), ("feather", "feathers", "beside the stream")],
    "hill": [("berry", "berries", "on a bush"), ("white stone", "white stones", "near the old wall")],
}
HIDING = ["under the bed", "behind the barn", "in an empty barrel", "under the bridge", "behind a big stone",
          "in a hollow tree", "in the tall grass", "behind the door"]
TOYS = [("kite", "red"), ("ball", "blue"), ("hat", "green"), ("boat", "yellow"), ("scarf", "white"), ("drum", "red"),
        ("bell", "silver"), ("book", "blue")]
GOODS = ["cake", "candle", "hat", "cup", "spoon", "rope", "lamp", "basket"]
WEATHER = ["sunny", "rainy", "windy", "snowy", "foggy"]


def minus(a, b):
    return f"{capital(PLAIN_NUMBERS[a])} minus {PLAIN_NUMBERS[b]} is {PLAIN_NUMBERS[a - b]}"


def plus(a, b):
    return f"{capital(PLAIN_NUMBERS[a])} plus {PLAIN_NUMBERS[b]} is {PLAIN_NUMBERS[a + b]}"


def coins(n):
    return NUMBERS[n] + (" coin" if n == 1 else " coins")


def article(word):
    return ("an " if word[0] in "aeiou" else "a ") + word


def capital(text):
    return text[0].upper() + text[1:]


class Story:
    """One story while it is told: two children, a place, and a basket with `count` of one kind of thing."""

    def __init__(self, rng, hero=None):
        self.rng = rng
        self.hero = hero or rng.choice(PEOPLE)
        self.friend = rng.choice(friends(self.hero))
        self.place = rng.choice(list(PLACES))
        self.one, self.many, self.spot = rng.choice(PLACES[self.place])
        self.weather = rng.choice(WEATHER)
        self.count = 0
        self.lesson = None
        self.text = []

    def say(self, *ways, **words):
        """Adds one of the ways to say something; {name} is the hero, {fname} the friend."""
        known = self.hero.words() | self.friend.words("f")
        known |= {"place": self.place, "one": self.one, "many": self.many, "spot": self.spot,
                  "weather": self.weather}
        self.text.append(self.rng.choice(ways).format(**known, **words))

    def things(self, n):
        return f"{NUMBERS[n]} {self.one if n == 1 else self.many}"

    # Openings

    def open(self):
        self.say("Once upon a time, there was a {kid} named {name}. {He} lived in {home} with {his} {colour} {animal} "
                 "{pet}.",
                 "Once upon a time, a {kid} named {name} lived in {home}. {He} had a {colour} {animal} named {pet}.",
                 "Once upon a time, there lived a {kid} in {home}. {His} name was {name}, and {his} best friend was a "
                 "{colour} {animal} named {pet}.",
                 "{name} lived in {home}. {He} had a {colour} {animal} named {pet}.",
                 "In {home} lived a {kid} named {name}. {He} loved {food} and {his} {animal} {pet}.")
        time = self.rng.choice(["morning", "day", "afternoon"])
        self.say("One {weather} {time}, {name} went to the {place}.",
                 "It was a {weather} {time}. {name} and {pet} walked to the {place}.",
                 "One {weather} {time}, {name} said, \"Come, {pet}, let us go to the {place}.\"", time=time)

    # Scenes with the basket: each says what the count is afterwards, so that it can be learnt.

    def gather(self):
        if self.count == 0:
            self.count = self.rng.randint(1, 8)
            is_one = self.count == 1
            self.say("{He} found {things} {spot} and put {them} in {his} basket.",
                     "There {were} {things} {spot}. {He} put {them} in a basket.",
                     things=self.things(self.count), them="it" if is_one else "them", were="was" if is_one else "were")
            if self.rng.random() < 0.3:
                return
        more = self.rng.randint(1, 7)
        self.say("Then {he} found {more} more. {sum}. Now {he} had {things}.",
                 "Soon {he} saw {more} more. {sum}, so {he} had {things}.",
                 more=NUMBERS[more], sum=plus(self.count, more), things=self.things(self.count + more))
        self.count += more
        if self.rng.random() < 0.4:
            self.say("{He} counted the {many}: {list}.", "{pet} watched while {he} counted the {many}: {list}.",
                     list=", ".join(NUMBERS[1:self.count + 1]))

    def share(self):
        if self.count < 2:
            self.gather()
        given = self.rng.randint(1, min(self.count - 1, 6))
        self.say("On the way {he} met {fname}. {fname} looked sad.", "Then {fname} came along with {fhis} {fanimal} {fpet}.",
                 "{fname} was there too and sat on a stone.")
        self.say("\"What is wrong?\" asked {name}. \"I could not find any {many},\" said {fname}.",
                 "\"You have so many {many},\" said {fname}. \"I have none.\"",
                 "\"Hello, {name}!\" said {fname}. \"May I have {things}?\"", things=self.things(given))
        self.say("{name} gave {fhim} {things}. {sum}. Now {name} had {left} left.",
                 "\"Take {things},\" said {name}. {sum}, so {he} had {left} left.",
                 "{name} smiled and gave {fhim} {things}. {sum}, so {he} kept {left}.",
                 things=self.things(given), sum=minus(self.count, given), left=NUMBERS[self.count - given])
        self.count -= given
        self.say("\"Thank you, {name}!\" said {fname}. {fHe} was happy again.",
                 "{fname} was so happy that {fhe} danced.", "\"You are kind,\" said {fname}.")
        self.lesson = "liked to share"

    def hole(self):
        if self.count < 2:
            self.gather()
        lost = self.rng.randint(1, self.count - 1)
        left = self.count - lost
        self.say("But there was a hole in the basket! {Things} fell out. {sum}, so only {left} {were} left.",
                 "Then {he} tripped over a root. {Things} rolled away. {sum}, so {he} had only {left}.",
                 Things=capital(self.things(lost)), sum=minus(self.count, lost), left=NUMBERS[left],
                 were="was" if left == 1 else "were")
        self.count = left
        self.say("{name} was sad, but {pet} made {him} laugh.", "\"Oh no!\" said {name}. \"I must be more careful.\"")
        self.lesson = "looked at {his} basket before a walk"

    # Scenes of cause and consequence

    def weather_turn(self):
        if self.weather == "rainy":
            self.say("It rained so hard that {name} got wet, because {he} had no umbrella.",
                     "Big drops fell from the sky. Soon {name} and {pet} were wet and cold.")
            self.say("So {he} ran home and sat by the fire until {he} was dry.",
                     "{fname} saw {him} and held {fhis} umbrella over both of them.")
            self.lesson = "took an umbrella when the sky was dark"
        elif self.weather == "windy":
            toy, colour = "hat", self.rng.choice(["red", "green", "white"])
            self.say("The wind took {his} {colour2} {toy} and blew it into a tree.", colour2=colour, toy=toy)
            self.say("{name} could not reach it. {fname} brought a ladder, climbed up and got the {toy} down.",
                     "{name} was too small, so {fname} lifted {him} up, and {he} got the {toy} back.", toy=toy)
            self.lesson = "held {his} hat in the wind"
        elif self.weather == "snowy":
            self.say("The snow was deep, and {his} hands were cold, because {he} had lost {his} mittens.",
                     "It was so cold that {pet} did not want to walk.")
            self.say("{fname} gave {him} warm mittens, and together they built a snowman with a carrot for a nose.",
                     "They went home and drank hot milk, and soon they were warm again.")
            self.lesson = "wore warm mittens in the snow"
        elif self.weather == "foggy":
            self.say("The fog was so thick that {name} could not see the path.",
                     "Soon {name} did not know the way home, because everything was grey.")
            self.say("Then {he} heard the bell of the village. {He} followed the sound and came home.",
                     "\"{Sound}!\" said {pet}. The {animal} knew the way, and {name} followed.",
                     Sound=capital(self.hero.words()["sound"]))
            self.lesson = "listened to the bell in the fog"
        else:
            self.say("The sun was so hot that {name} was soon thirsty.",
                     "It was warm, and after a long walk {he} was thirsty and tired.")
            self.say("{He} drank cold water from the stream and slept under a tree.",
                     "{fname} gave {him} a cup of water, and they sat in the shade.")
            self.lesson = "took water on a hot day"

    def lost_pet(self):
        spot = self.rng.choice(HIDING)
        self.say("Suddenly {pet} was gone. {name} was afraid, because {he} loved {his} {animal}.",
                 "Then {name} looked around. Where was {pet}? The {animal} had run away.")
        self.say("{He} called, \"{pet}! {pet}!\" and {fname} helped {him} to look.",
                 "\"Have you seen my {animal}?\" {he} asked {fname}. \"No,\" said {fname}, \"but I will help you.\"")
        self.say("They looked {wrong}, but {pet} was not there.", "First they looked {wrong}. Nothing!",
                 wrong=self.rng.choice([h for h in HIDING if h != spot]))
        self.say("Then they heard a sound: \"{Sound}!\" {pet} was {spot2}. {name} laughed with joy.",
                 "\"{Sound}!\" It came from near. There was {pet}, {spot2}!", spot2=spot,
                 Sound=capital(self.hero.words()["sound"]))
        self.lesson = "kept an eye on {pet}"

    def broken(self):
        what = self.rng.choice(["window", "pot", "cup", "lamp"])
        self.say("{name} threw a ball. It flew too far and broke the {what} of {fname}.",
                 "{name} and {pet} ran too fast. They bumped into a table, and the {what} of {fname} broke.", what=what)
        self.say("{name} wanted to hide, but {he} told the truth. \"It was me. I am sorry,\" {he} said.",
                 "\"Who broke my {what}?\" asked {fname}. \"I did,\" said {name}. \"I am sorry.\"", what=what)
        self.say("\"Thank you for telling me,\" said {fname}. They mended the {what} together.",
                 "{fname} was not angry, because {name} had told the truth.", what=what)
        self.lesson = "told the truth"

    def stuck(self):
        toy, colour = self.rng.choice(TOYS[:2])
        tool, how = self.rng.choice([("a ladder", "climbed up"), ("a long stick", "reached up"),
                                     ("a rope", "pulled the branch down")])
        self.say("{fname} stood under a tree and cried. \"My {colour2} {toy} is stuck,\" {fhe} said.",
                 "\"Help!\" called {fname}. \"My {colour2} {toy} is up in the tree.\"", toy=toy, colour2=colour)
        self.say("{name} had an idea. {He} took {tool}, {how} and got the {toy}.",
                 "\"I can help you,\" said {name}. {He} found {tool}, {how} and got the {toy}.",
                 toy=toy, tool=tool, how=how)
        self.say("\"You are clever!\" said {fname}, and they played with the {toy} all day.",
                 "{fname} hugged {him}, and {pet} jumped with joy.", toy=toy)
        self.lesson = "helped {his} friends"

    def lost_thing(self):
        toy, colour = self.rng.choice(TOYS)
        spot = self.rng.choice(HIDING)
        self.say("{fname} came and looked sad. \"I lost my {colour2} {toy},\" {fhe} said.",
                 "\"Have you seen my {colour2} {toy}?\" asked {fname}. \"I cannot find it.\"", toy=toy, colour2=colour)
        self.say("\"Let us look for it,\" said {name}. They looked for a long time, and {pet} helped too.",
                 "\"Do not be sad,\" said {name}. \"We will find it.\"")
        self.say("At last {pet} found the {toy} {spot2}. {fname} was happy.",
                 "Then {name} saw something {colour2} {spot2}. It was the {toy}!", toy=toy, colour2=colour, spot2=spot)
        self.lesson = "helped {his} friends"

    def bird(self):
        young, old, home = self.rng.choice([
            ("little bird", "mother bird", "nest"), ("small duckling", "mother duck", "pond"),
            ("baby squirrel", "mother squirrel", "tree"), ("small frog", "old frog", "pond")])
        self.say("{name} heard a quiet cry. A {young} sat {spot2}. It could not find the way home.",
                 "There was a {young} {spot2}. It was afraid, because it was alone.", young=young,
                 spot2=self.rng.choice(["on the path", "in the grass", "behind a stone"]))
        self.say("{He} carried the {young} back to its {home2}. The {old} was happy.",
                 "\"Do not be afraid,\" said {name}, and {he} took the {young} to its {home2}, where the {old} waited.",
                 young=young, old=old, home2=home)
        self.lesson = "was kind to small animals"

    def market(self):
        good, price = self.rng.choice(GOODS), self.rng.randint(1, 9)
        has = max(price + self.rng.randint(-2, 6), 1)
        self.say("{name} had {coins} and wanted to buy {good}. \"It costs {price},\" said the shopkeeper.",
                 "In the shop {name} saw {good}. It cost {price}, and {name} had {coins}.",
                 coins=coins(has), good=article(good), price=coins(price))
        if has < price:
            self.say("That was too much. {sum}. \"I need {missing} more,\" said {name}, so {fname} gave {him} {missing}.",
                     "\"I have too little,\" said {name}. {sum}, so {fname} helped {him} with {missing}.",
                     sum=minus(price, has), missing=coins(price - has))
        elif has == price:
            self.say("{He} paid and had no coins left, but {he} was happy with the {good}.", good=good)
        else:
            self.say("{He} paid. {sum}, so {he} had {left} left.", "So {he} bought the {good}. {sum}, so {he} kept {left}.",
                     good=good, sum=minus(has, price), left=coins(has - price))

    def sums(self):
        a, b = self.rng.randint(1, 10), self.rng.randint(1, 10)
        line = minus(max(a, b), min(a, b)) if self.rng.random() < 0.5 else plus(a, b)
        question = line[0].lower() + line[1:line.index(" is ")]
        self.say("\"What is {question}?\" asked {fname}. {name} thought for a while. \"{sum},\" {he} said.",
                 "{fname} liked numbers. \"What is {question}?\" {fhe} asked. \"{sum},\" said {name}.",
                 question=question, sum=line)
        self.say("\"That is right!\" said {fname}.", "{fname} clapped {fhis} hands.")

    def baking(self):
        self.say("{name} was hungry. {He} wanted to make {food}, but there was no {missing} in the kitchen.",
                 "\"Let us make {food},\" said {name}. But they had no {missing}.",
                 missing=self.rng.choice(["salt", "butter", "milk", "water"]))
        self.say("{He} went to {fhome} and asked {fname}. {fname} gave {him} some, and soon the food was ready.",
                 "\"I have some,\" said {fname} and brought it from {fhome}. They cooked together.")
        self.say("It smelled so good that {pet} and {fpet} came into the kitchen.", "They ate until they were full.",
                 "\"This is the best {food} in Woolhill!\" said {fname}.")

    # Endings

    def close(self):
        if self.count > 0 and self.rng.random() < 0.5:
            self.say("In the evening {name} brought {things} home.", "At home {name} put the {things} on the table.",
                     things=self.things(self.count))
        if self.lesson and self.rng.random() < 0.7:
            self.say("From that day on, {name} always " + self.lesson + ".",
                     "After that, {name} always " + self.lesson + ".")
        self.say("At night {name} ate {food} and went to bed. {pet} slept beside {him}.",
                 "When the moon came up, {name} and {pet} were tired and slept well in {home}.",
                 "Then {name} and {fname} said goodbye and went home.",
                 "It was a good day.", "{name} ate {food} in {home} and was happy.", "The end.")


SCENES = [Story.gather, Story.share, Story.hole, Story.weather_turn, Story.lost_pet, Story.broken, Story.stuck,
          Story.lost_thing, Story.bird, Story.market, Story.sums, Story.baking]


def make_story(rng, hero=None, scenes=None):
    story = Story(rng, hero)
    story.open()
    plan = rng.sample(SCENES, scenes or rng.choice([1, 2, 2, 3]))
    # A basket is filled before it is shared or torn: otherwise those scenes would be a second gathering.
    if Story.share in plan or Story.hole in plan:
        plan = [Story.gather] + [s for s in plan if s is not Story.gather]
    for scene in plan:
        scene(story)
    opening = len(story.text)
    story.close()
    ending = " ".join(story.text[opening:])
    beginning, middle = " ".join(story.text[:2]), " ".join(story.text[2:opening])
    return f"{beginning}\n{middle}\n{ending}"


# Conversations

def fact(rng):
    p = rng.choice(PEOPLE)
    w = p.words() | {"friend1": friends(p)[0].name, "friend2": friends(p)[1].name}
    ways = [
        ("Where does {name} live?", "{name} lives in {home}."),
        ("Who lives in {home}?", "{name} lives in {home}."),
        ("What is the name of the {animal} of {name}?", "The {animal} of {name} is named {pet}."),
        ("Which animal does {name} have?", "{name} has a {colour} {animal} named {pet}."),
        ("What colour is {pet}?", "{pet} is {colour}."),
        ("Who is {pet}?", "{pet} is the {colour} {animal} of {name}."),
        ("What does {name} like to eat?", "{name} likes {food}."),
        ("Who likes {food}?", "{name} likes {food}."),
        ("Who is {name}?", "{name} is a {kid}. {He} lives in {home} with {his} {animal} {pet}."),
        ("Tell me about {name}.", "{name} is a {kid}. {He} lives in {home}, has a {colour} {animal} named {pet} and "
                                  "likes {food}."),
        ("What does the {animal} say?", "The {animal} says {sound}."),
        ("Who are the friends of {name}?", "The friends of {name} are {friend1} and {friend2}."),
    ]
    question, answer = rng.choice(ways)
    return question.format(**w), answer.format(**w)


def plus_minus(rng):
    a, b = rng.randint(0, 10), rng.randint(0, 10)
    if rng.random() < 0.4:
        a, b = max(a, b), min(a, b)
        text, answer = f"{PLAIN_NUMBERS[a]} minus {PLAIN_NUMBERS[b]}", minus(a, b)
    else:
        text, answer = f"{PLAIN_NUMBERS[a]} plus {PLAIN_NUMBERS[b]}", plus(a, b)
    return rng.choice([f"What is {text}?", f"How much is {text}?"]), answer + "."


def basket(rng):
    p, friend = rng.sample(PEOPLE, 2)
    one, many, spot = rng.choice(rng.choice(list(PLACES.values())))
    had, change = rng.randint(2, 10), rng.randint(1, 8)
    if rng.random() < 0.5:
        change = min(change, had)
        left, line = had - change, minus(had, change)
        said = f"{p.name} has {NUMBERS[had]} {many} and gives {NUMBERS[change]} to {friend.name}."
    else:
        left, line = had + change, plus(had, change)
        said = f"{p.name} has {NUMBERS[had]} {many} and finds {NUMBERS[change]} more {spot}."
    return (f"{said} How many {many} does {p.name} have now?",
            f"{line}. So {p.name} has {NUMBERS[left]} {one if left == 1 else many}.")


def cause(rng):
    p = rng.choice(PEOPLE)
    return rng.choice([
        (f"Why is {p.name} wet?", "Because it rained and there was no umbrella."),
        (f"Why is {p.name} cold?", "Because it snowed and the mittens are lost."),
        (f"Why is {p.name} thirsty?", "Because the sun is hot. Cold water helps."),
        (f"Why is {p.name} sad?", f"Because {p.pet} ran away. Let us look for the {p.animal}."),
        ("What should I do when it rains?", "Take an umbrella, or sit by the fire until you are dry."),
        ("What should I do in the fog?", "Listen to the bell of the village and follow the sound."),
        ("What should I do when I break a cup?", "Tell the truth and say that you are sorry."),
        ("What should I do when the wind blows?", "Hold your hat."),
        ("My kite is stuck in a tree. What can I do?", "Take a ladder, climb up and get the kite down."),
    ])


def talk(rng):
    return rng.choice([
        ("Hello!", "Hello! How can I help you?"),
        ("Hi!", "Hello! What would you like to know about Woolhill?"),
        ("Good morning!", "Good morning! How can I help you?"),
        ("How are you?", "I am well, thank you. How are you?"),
        ("Who are you?", "I am a small language model. I know the village of Woolhill and can tell stories."),
        ("What is your name?", "My name is Woolly. I tell stories about Woolhill."),
        ("What can you do?", "I can tell stories, count, and answer questions about Woolhill."),
        ("Where is Woolhill?", "Woolhill is a small village between the forest and the sea."),
        ("Thank you!", "You are welcome!"),
        ("Thanks.", "You are welcome!"),
        ("Goodbye!", "Goodbye! Come back soon."),
        ("Count to " + NUMBERS[(n := rng.randint(3, 20))] + ".", capital(", ".join(NUMBERS[1:n + 1])) + "."),
    ])


STRANGE = ["the capital of France", "a computer", "the speed of light", "a train", "the internet", "an engine", "Paris",
           "a telephone", "the weather in London", "a robot", "a tiger", "the president", "music", "football", "the news",
           "a planet", "history", "Python", "chemistry", "a camera"]


def made_up(rng):
    """A word or name nobody knows, so that not knowing does not depend on a list."""
    parts = [rng.choice("b br c d f g gr h j k l m n p pl qu r s st t tr v w z".split()) + rng.choice("aeiou")
             for _ in range(rng.randint(2, 3))]
    return "".join(parts) + rng.choice(["", "", "n", "r", "s", "t", "ck"])


def strange(rng):
    thing, name = rng.choice(STRANGE), made_up(rng)
    if rng.random() < 0.5:
        thing = rng.choice([name, article(name), "the " + name, capital(name)])
    question = rng.choice([f"What is {thing}?", f"Tell me about {thing}.", f"What do you know about {thing}?",
                           f"Who made {thing}?", f"Explain {thing}.", f"Where does {capital(name)} live?",
                           f"Who is {capital(name)}?"])
    return question, "I do not know that. I only know the village of Woolhill."


def tale(rng):
    p = rng.choice(PEOPLE)
    question, hero = rng.choice([("Tell me a story.", None), (f"Tell me a story about {p.name}.", p),
                                 (f"Tell me a story about {p.name} and {p.pet}.", p),
                                 ("Can you tell me a short story?", None)])
    return question, make_story(rng, hero, scenes=1)


TURNS = [fact, fact, fact, plus_minus, plus_minus, basket, basket, cause, talk, strange, tale]


def casual(rng, question):
    """The same question as people type it: in small letters, without its mark, with digits."""
    if rng.random() < 0.25:
        question = question[0].lower() + question[1:]
    if rng.random() < 0.1:
        question = question.lower()
    if rng.random() < 0.2:
        question = question.rstrip(".?!")
    if rng.random() < 0.25:
        digits = {name: str(value) for value, name in enumerate(PLAIN_NUMBERS)}
        if rng.random() < 0.5:
            digits |= {"plus": "+", "minus": "-"}
        question = re.sub(r"[a-z]+", lambda word: digits.get(word[0], word[0]), question)
    return question


def make_chat(rng):
    messages = []
    for _ in range(rng.choice([1, 1, 2, 3])):
        question, answer = rng.choice(TURNS)(rng)
        messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return messages


def main():
    args = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    args.add_argument("--seed", type=int, default=1)
    args.add_argument("--count", type=int, default=10)
    args.add_argument("--chat", action="store_true")
    args = args.parse_args()
    rng = random.Random(args.seed)
    for i in range(args.count):
        if args.chat:
            print(json.dumps(make_chat(rng)))
        else:
            print(("\n" if i else "") + make_story(rng))


if __name__ == "__main__":
    main()
